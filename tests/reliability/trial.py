"""A child process in which a loader opens hostile files one after the other, and nothing that happens goes unseen."""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reliability.hostile import SECRET, Hostile
from reliability.loaders import Loader, seal
from ssl_framework.commands import errors
from ssl_framework.types import BadSampleError
from ssl_framework.views.kernels import cpu
from support import in_a_child

_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen", "pty.spawn", "planted",
         "ctypes.dlopen", "webbrowser.open")  # fmt: skip
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto", "urllib.Request")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.link", "os.symlink",
            "shutil.rmtree", "shutil.move")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MORE = 3 << 30  # bytes of addresses that a loader may take beyond what the process has
_SECONDS = 20  # that one file may take
VALUE = "planted-value-8b1f"


class Outcome(NamedTuple):
    """How a file ended.

    Attributes:
        end: refused, in a sentence; inert, it was read and did nothing; strange, another exception.
        said: the sentence, or the traceback.
        traces: what ran, was written or was called.
    """

    end: str
    said: str
    traces: list[str]


class TooLongError(BaseException):
    """A file held its reader up."""


class _Itself(str):
    """A path that is not followed further."""


class Watch:
    """The audit hook: once set it stays, so only a child has one."""

    def __init__(self, inside: Sequence[Path]) -> None:
        self.inside = [os.path.realpath(one) for one in inside]
        self.traces: list[str] = []
        self.armed = False
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.armed and (said := self.seen(event, arguments)) is not None:
            self.traces.append(said[:300])

    def seen(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "ctypes.dlopen" and "/" not in str(arguments[0]):  # a library of the system, which torch looks for
            return None
        if event in _RUNS or event in _NETWORK:
            return f"{event} {arguments}"
        if event == "import" and str(arguments[0]).startswith("planted_module"):
            return f"import {arguments[0]}"
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in (mode or "") for letter in "wax+") or (isinstance(flags, int) and flags & _WRITING)
            return f"open {path} {mode}" if writes and self.outside(path) else None
        within_a_folder = event.startswith(("os.re", "os.rm")) and isinstance(arguments[-1], int) and arguments[-1] >= 0
        if event not in _CHANGES or within_a_folder:  # shutil.rmtree, which says itself where
            return None
        names = [one for one in arguments[:2] if isinstance(one, str | bytes | os.PathLike)]
        return f"{event} {arguments}" if any(map(self.outside, map(_itself, names))) else None

    def outside(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike) or path in ("", os.devnull):
            return False
        real = str(path) if isinstance(path, _Itself) else os.path.realpath(os.fsdecode(path))
        return not any(real == one or real.startswith(f"{one}/") for one in self.inside)


def _itself(path: Any) -> str:
    """A name in its folder: of a link, not what it leads to."""
    named = Path(os.fsdecode(path))
    return _Itself(named.absolute().parent.resolve() / named.name)


def outcomes(
    loader: Loader, files: dict[str, Hostile], good: Path, folder: Path, *, unsafely: bool = False
) -> dict[str, Outcome]:
    """Open each file in a child; what it did not come to has no outcome.

    Args:
        loader: what opens them.
        files: by name.
        good: files of `loaders.good_files`, which are copied.
        folder: for the copy.
        unsafely: read them by what has no care, the control.
    """
    shutil.copytree(good, folder / "trial", symlinks=True)
    told = folder / "outcomes.jsonl"
    status = in_a_child(lambda: _child(loader, files, folder, told, unsafely))
    lines = told.read_text().splitlines() if told.is_file() else []
    found = {line["name"]: Outcome(line["end"], line["said"], line["traces"]) for line in map(json.loads, lines)}
    if status != 0:
        name = next((name for name in files if name not in found), "the end")
        found[name] = Outcome("strange", f"the process ended with status {status}", [])
    return found


def _child(loader: Loader, files: dict[str, Hostile], folder: Path, told: Path, unsafely: bool) -> None:
    home = folder / "trial"
    (folder / "precious").mkdir()
    (folder / "precious" / "file").write_text("kept")
    (folder / "modules").mkdir()
    (folder / "modules" / "planted_module.py").write_text("import sys\nsys.audit('planted')\nclass Net: pass\n")
    sys.path.insert(0, str(folder / "modules"))
    _settle(folder)
    compiled = Path(cpu.__file__).parent / "__pycache__"  # where numba keeps what it has compiled
    watch = Watch([home, folder / "temporary", folder / "caches", compiled])
    for name, hostile in files.items():
        end, said = _opened(loader, hostile, home, watch, unsafely)
        traces = list(watch.traces) + _left(folder, home, said)
        watch.traces.clear()
        sys.modules.pop("planted_module", None)
        with told.open("a") as file:
            file.write(json.dumps({"name": name, "end": end, "said": said[-3000:], "traces": traces}) + "\n")
    os._exit(0)


def _settle(folder: Path) -> None:
    """Caches and temporary files within reach, no bytecode beside modules, limits, and a secret."""
    import datasets

    from ssl_framework.commands import folder as run_folder

    for name in ("temporary", "caches"):
        (folder / name).mkdir()
    tempfile.tempdir = str(folder / "temporary")
    datasets.config.HF_DATASETS_CACHE = datasets.config.HF_CACHE_HOME = str(folder / "caches")
    datasets.disable_progress_bars()
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")  # they are shown, and pytest makes errors of them
    os.environ.update({SECRET: VALUE, "XDG_CACHE_HOME": str(folder / "caches"), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})
    run_folder.commit = lambda: None  # it asks git
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MORE, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _too_long)


def _too_long(*_: object) -> None:
    raise TooLongError(f"more than {_SECONDS} seconds")


def _opened(loader: Loader, hostile: Hostile, home: Path, watch: Watch, unsafely: bool) -> tuple[str, str]:
    """Put a file in its place, open it, and put back what stood there."""
    slot = next(iter(sorted(home.glob(loader.slot(hostile.kind)))))
    kept = {path: path.read_bytes() for path in _beside(slot)}
    try:
        content = hostile.make(home, slot)
        if content is not None:
            slot.write_bytes(content)
        if loader.seals:
            seal(home)
        return _called(lambda: hostile.unsafely(slot) if unsafely and hostile.unsafely else loader.call(home), watch)
    finally:
        for path in _beside(slot):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path, old in kept.items():
            path.write_bytes(old)
        for made in ("trace", "objects.npy", "evil.yaml"):
            (home / made).unlink(missing_ok=True)


def _beside(slot: Path) -> list[Path]:
    """The file, what would be made of it, and its neighbours that a loader sets aside."""
    return [path for path in slot.parent.iterdir() if path == slot or path.is_file() or path.is_symlink()]


def _called(work: Callable[[], Any], watch: Watch) -> tuple[str, str]:
    spoken = io.StringIO()
    signal.alarm(_SECONDS)
    watch.armed = True
    try:
        with contextlib.redirect_stdout(spoken), contextlib.redirect_stderr(spoken):
            found = work()
            code = found if type(found) is int else 0  # of a verb
    except BadSampleError as error:  # which a source counts, and skips
        return "refused", str(error)
    except Exception as error:
        said = errors.sentence(error)
        return ("refused", said) if said else ("strange", "".join(traceback.format_exception(error)))
    except TooLongError as error:
        return "strange", str(error)
    finally:
        watch.armed = False
        signal.alarm(0)
    if code == 130 or (code == 1 and "Traceback" in spoken.getvalue()):
        return "strange", spoken.getvalue()
    return ("refused", spoken.getvalue()) if code in (1, 2) else ("inert", spoken.getvalue())


def _left(folder: Path, home: Path, said: str) -> list[str]:
    """What stands where nothing may: a trace, a file elsewhere, something precious that changed, a secret told."""
    found = [f"{name} was made" for name in ("elsewhere", "trial/trace", "outside") if (folder / name).exists()]
    for path in (folder / "elsewhere", folder / "trial/trace"):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    if not (folder / "precious/file").is_file() or (folder / "precious/file").read_text() != "kept":
        found.append("precious was changed")
        (folder / "precious").mkdir(exist_ok=True)
        (folder / "precious/file").write_text("kept")
    written = [path for path in (home / "out").rglob("*") if path.suffix in (".yaml", ".json", ".html", ".csv", ".md")]
    if VALUE in said or any(VALUE in path.read_text(errors="replace") for path in written):
        found.append("the secret was told")
    return found
