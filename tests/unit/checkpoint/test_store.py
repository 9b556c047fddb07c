"""Checkpoints that count are whole; damaged ones are named, set aside, and the one before is taken."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssl_framework.checkpoint import DamagedError, checkpoints, last_checkpoint, store


def saved(run: Path, *steps: int) -> list[Path]:
    """Checkpoints as a run leaves them."""
    folder = store.checkpoint_dir(run)
    folder.mkdir(exist_ok=True)
    paths = [folder / f"step-{step:09d}.ckpt" for step in steps]
    for step, path in zip(steps, paths, strict=True):
        torch.save({"state_dict": {"weight": torch.full((2000,), float(step))}}, path)
        store.seal(path, {"step": step, "threads": 1})
    return paths


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def gone(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_keys(path: Path) -> None:
    torch.save({"something": "else"}, path)


def other_shapes(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, path)


def no_manifest_of_ours(path: Path) -> None:
    path.with_suffix(".json").write_text('{"format": "another"}')


def half_a_manifest(path: Path) -> None:
    manifest = path.with_suffix(".json")
    manifest.write_text(manifest.read_text()[:40])


DAMAGES = (truncated, emptied, flipped, gone, other_keys, other_shapes, no_manifest_of_ours, half_a_manifest)


@pytest.mark.promise("R6", "damage: named, set aside, the one before is taken")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(damage: Callable[[Path], None], tmp_path: Path):
    before, last = saved(tmp_path, 3, 6)
    said: list[str] = []
    assert last_checkpoint(tmp_path, on_damage=said.append) == last
    damage(last)
    assert last_checkpoint(tmp_path) == before  # a process that only looks leaves it
    assert last.exists()
    assert not said
    assert last_checkpoint(tmp_path, on_damage=said.append) == before
    (told,) = said
    assert str(last) in told
    assert "is damaged" in told
    assert "kept as step-000000006.ckpt.damaged" in told
    assert not last.exists()
    assert last.with_name("step-000000006.ckpt.damaged").exists()
    assert checkpoints(tmp_path) == [before]


@pytest.mark.promise("R6", "control")
def test_torch_loads_a_flipped_bit_without_a_word(tmp_path: Path):
    (last,) = saved(tmp_path, 3)
    content = bytearray(last.read_bytes())
    content[content.index(torch.tensor(3.0).numpy().tobytes()) + 2] ^= 1
    last.write_bytes(content)
    assert torch.load(last, weights_only=True)["state_dict"]["weight"][0] != 3
    with pytest.raises(DamagedError):
        last_checkpoint(tmp_path)


def test_without_a_whole_one_each_is_named(tmp_path: Path):
    for path in saved(tmp_path, 1, 2):
        truncated(path)
    with pytest.raises(DamagedError, match=r"every checkpoint of .*: .*-000000002.*-000000001.* Begin the run again"):
        last_checkpoint(tmp_path)


def test_what_has_no_manifest_does_not_count_and_is_removed(tmp_path: Path):
    one, two = saved(tmp_path, 1, 2)
    two.with_suffix(".json").unlink()
    assert last_checkpoint(tmp_path) == one
    store.remove_unfinished(tmp_path)
    assert not two.exists()
    assert one.exists()


def test_a_folder_of_shards_is_one_checkpoint(tmp_path: Path):
    path = store.checkpoint_dir(tmp_path) / "step-000000001.ckpt"
    path.mkdir(parents=True)
    for rank in (0, 1):
        (path / f"{rank}.distcp").write_bytes(bytes([rank]) * 100)
    store.seal(path, {})
    assert last_checkpoint(tmp_path) == path
    (path / "1.distcp").unlink()
    with pytest.raises(DamagedError, match=r"step-000000001.ckpt/1.distcp is missing"):
        last_checkpoint(tmp_path)
    store.remove(path)
    assert list(store.checkpoint_dir(tmp_path).iterdir()) == []


@pytest.mark.parametrize("name", ["../secret", "step-000000001.ckpt/../../secret", "/etc/hostname", ""])
def test_a_manifest_reads_no_other_file(name: str, tmp_path: Path):
    (path,) = saved(tmp_path, 1)
    manifest = path.with_suffix(".json")
    content = json.loads(manifest.read_text())
    content["files"] = {name: content["files"].popitem()[1]}
    manifest.write_text(json.dumps(content))
    with pytest.raises(DamagedError, match=r"its manifest step-000000001\.json is none of this version"):
        store.verify(path)
