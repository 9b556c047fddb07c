"""A run is done when its steps are."""

import pytorch_lightning as pl


class WholeRun(pl.Callback):
    """Refuses the end of a run that made fewer steps than it was to make, which Lightning takes for a finished one.

    Lightning warns of an empty loader and says that training is done; a loader that runs dry ends it likewise.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the count.

        Raises:
            ValueError: steps are missing, and nobody asked for an early end.
        """
        done, wanted = trainer.global_step, trainer.max_steps
        if done < wanted and not trainer.should_stop:
            raise ValueError(
                f"Training ended after {done} of {wanted} steps, because its loader had no more batches: give it one that "
                "repeats the data, as the loader of DataModule does, and at least one batch of samples."
            )
