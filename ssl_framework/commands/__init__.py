"""One module a verb of the command line, each with a function ``run(settings)`` that Python may call as well.

This file imports nothing: listing the verbs, help and error messages need neither torch nor Lightning.
"""

VERBS: dict[str, str] = {
    "check": "read every sample of a data set before training: unreadable, twice, in two splits, classes",
    "pretrain": "pretrain an encoder on unlabelled data with a pretext task",
    "replay": "the batch at which a pretraining stopped being finite, once more: where, and which samples",
    "downstream": "train a task head on few labels, on a pretrained encoder, frozen or not",
    "evaluate": "measure a frozen encoder by kNN and linear probe, beside its floors",
    "transfer": "whether pretraining paid: accuracy with few labels, beside scratch and floors, with intervals",
    "report": "the page of a study, or of several that are compared",
    "reproduce": "one row of a study, measured again and compared",
    "embed": "write embeddings with ids and labels, as .npz or .parquet",
    "detect": "train a detector of boxes on a pretrained encoder, from COCO's annotation files",
    "predict": "what a model of downstream says of a folder of images, as .csv or .parquet",
    "convert": "make an encoder file of weights of timm, torchvision, Hugging Face and others",
    "tasks": "list the pretext tasks: what they predict, and what keeps them from collapse",
    "demo": "pretrain and transfer on handwritten digits, and show that it paid, in under 3 minutes",
}
