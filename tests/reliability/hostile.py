"""Files that a stranger may have made: each tries to run code, to write or tell something elsewhere, or to break the reader.

Whatever of it runs leaves a trace: it calls `sys.audit("planted")`, touches a file, or does what the audit
hook of the child sees.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

SECRET = "PLANTED_SECRET"  # the name of an environment variable; its value must appear nowhere
HTML = "<script>planted()</script><img src=x onerror=planted()>"


class Hostile(NamedTuple):
    """One file.

    Attributes:
        kind: of the file: pickle, zip, safetensors, yaml, json, csv, table, array, image, link.
        make: its bytes, from the folder of the trial and what stood in its place; None: it is no plain file, and was put there.
        unsafely: what reads it without care, as a control; None: damages that no reader runs.
    """

    kind: str
    make: Callable[[Path, Path], bytes | None]
    unsafely: Callable[[Path], Any] | None = None


# Pickles, by hand: what pickle.dumps of a class would not write.


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def word(text: str) -> bytes:
    return f"V{text}\n".encode("raw_unicode_escape")


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def code(folder: Path) -> str:
    return f"[__import__('sys').audit('planted'), open({str(folder / 'trace')!r}, 'w').close()]"


def touch(folder: Path) -> str:
    return f"touch {folder / 'trace'}"


def of_os(function: str, *arguments: bytes) -> bytes:
    """By a chain of getattr, so that no name of it stands in the file as one."""
    module = call(name("builtins", "__import__"), word("os"))
    return call(call(name("builtins", "getattr"), module, word(function)), *arguments)


def nested(folder: Path) -> bytes:
    """A file of torch within a pickle, which torch's own storage would open."""
    inner = legacy(call(name("builtins", "eval"), word(code(folder))) + b".")
    return call(name("torch.storage", "_load_from_bytes"), call(name("_codecs", "encode"), word(latin(inner)), word("latin1")))


def latin(content: bytes) -> str:
    return content.decode("latin1").replace("\\", "\\u005c").replace("\n", "\\u000a").replace("\x1a", "\\u001a")


CALLS: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda folder: call(name("os", "system"), word(touch(folder))),
    "posix.system": lambda folder: call(name("posix", "system"), word(touch(folder))),
    "eval": lambda folder: call(name("builtins", "eval"), word(code(folder))),
    "exec": lambda folder: call(name("builtins", "exec"), word(code(folder))),
    "a chain of getattr": lambda folder: of_os("system", word(touch(folder))),
    "torch's storage": nested,
    "subprocess": lambda folder: call(name("subprocess", "getoutput"), word(touch(folder))),
    "runpy": lambda folder: call(
        name("runpy", "_run_code"), call(name("builtins", "compile"), word(code(folder)), word("x"), word("exec")), b"}"
    ),
    "timeit": lambda folder: call(name("timeit", "timeit"), word(code(folder)), word("pass"), name("time", "time"), b"I1\n"),
    "a planted module": lambda folder: name("planted_module", "Net"),
    "numpy.load": lambda folder: call(name("numpy", "load"), word(str(objects(folder))), b"N", b"I01\n"),
    "a file elsewhere": lambda folder: call(name("io", "open"), word(f"{folder.parent}/elsewhere"), word("w")),
    "a socket": lambda folder: call(name("socket", "create_connection"), b"(" + word("127.0.0.1") + b"I9\nt"),
    "removing a folder": lambda folder: call(name("shutil", "rmtree"), word(f"{folder.parent}/precious")),
    "a library": lambda folder: call(name("ctypes", "CDLL"), word(f"{folder}/evil.so")),
}


def objects(folder: Path) -> Path:
    """An array of objects, one of which runs."""
    file = folder / "objects.npy"
    header = {"descr": "|O", "fortran_order": False, "shape": (1,)}
    with file.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(b"(" + call(name("builtins", "eval"), word(code(folder))) + b"l.")
    return file


OPCODES: dict[str, Callable[[Path], bytes]] = {
    "INST": lambda folder: b"(" + word(touch(folder)) + b"ios\nsystem\n.",
    "OBJ": lambda folder: b"(" + name("os", "system") + word(touch(folder)) + b"o.",
    "two in a file": lambda folder: pickle.dumps({}) + call(name("os", "system"), word(touch(folder))) + b".",
    "REDUCE below": lambda folder: b"}" + word("state_dict") + call(name("os", "system"), word(touch(folder))) + b"s.",
    "an unknown one": lambda folder: b"\x80\x04\xff\xff.",
    "a memory of no place": lambda folder: b"\x80\x02h\xff.",
    "a mark too few": lambda folder: b"t.",
    "of huge bytes": lambda folder: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "of a huge bytearray": lambda folder: call(name("builtins", "bytearray"), b"L%dL\n" % (1 << 44)) + b".",
}

SLOTS = ("state_dict", "hyper_parameters", "optimizer_states", "lr_schedulers", "callbacks", "loops", "DataModule")


class Runs:
    """What pickle asks how to be made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return eval, (code(self.folder),)


def state(content: Any = None) -> dict[str, Any]:
    """A checkpoint of Lightning's, as far as it matters."""
    return {
        "epoch": 0,
        "global_step": 2,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {"weight": torch.zeros(2, 2)},
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        **(content or {}),
    }


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def legacy(content: bytes) -> bytes:
    """The format before torch 1.6: magic number, version, system, then the object."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(one, 2) for one in head) + content


def archive(members: dict[str, bytes], compressed: bool = False) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as written:
        for member, content in members.items():
            written.writestr(member, content)
    return file.getvalue()


def in_archive(pickled: bytes, **more: bytes) -> bytes:
    members = {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n", **more}
    return archive({f"archive/{member}": content for member, content in members.items()})


def with_slot(slot: str) -> Callable[[Path, Path], bytes]:
    def make(folder: Path, good: Path) -> bytes:
        inside = {"optimizer_states": [Runs(folder)], "lr_schedulers": [Runs(folder)]}
        held = good_state(good)
        return saved({**held, slot: inside.get(slot, {**_mapping(held.get(slot)), "planted": Runs(folder)})})

    return make


def good_state(good: Path) -> dict[str, Any]:
    """What the file in this place holds, if it is a checkpoint."""
    if good.is_file() and zipfile.is_zipfile(good) and good.suffix in (".ckpt", ".pth"):
        held = torch.load(good, weights_only=True)
        return held if "loops" in held else state({"state_dict": held})
    return state()


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def unpickled(file: Path) -> Any:
    with file.open("rb") as handle:
        return pickle.load(handle)


def loaded(file: Path) -> Any:
    return torch.load(file, weights_only=False)


def raw(make: Callable[[Path], bytes]) -> Callable[[Path, Path], bytes]:
    return lambda folder, good: make(folder)


def tarred(folder: Path, good: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as written:
        for member in ("sys_info", "pickle", "tensors", "../../outside"):
            content = call(name("builtins", "eval"), word(code(folder))) + b"."
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            written.addfile(entry, io.BytesIO(content))
    return file.getvalue()


PICKLES: dict[str, Hostile] = {
    **{
        f"a pickle in an archive: {one}": Hostile(
            "pickle", lambda folder, good, make=make: in_archive(make(folder) + b"."), loaded
        )
        for one, make in CALLS.items()
    },
    **{f"a bare pickle: {one}": Hostile("pickle", raw(make), unpickled) for one, make in list(OPCODES.items())[:2]},
    **{f"a bare pickle: {one}": Hostile("pickle", raw(make)) for one, make in list(OPCODES.items())[2:]},
    **{f"a checkpoint whose {slot} runs": Hostile("pickle", with_slot(slot), loaded) for slot in SLOTS},
    "the format before archives": Hostile(
        "pickle", raw(lambda folder: legacy(call(name("builtins", "eval"), word(code(folder))) + b".")), loaded
    ),
    "its head": Hostile("pickle", raw(lambda folder: call(name("builtins", "eval"), word(code(folder))) + b"."), unpickled),
    "a tar file": Hostile("pickle", tarred),
    "a script of torch": Hostile(
        "pickle",
        raw(lambda folder: in_archive(b"}.", **{"constants.pkl": b"(t.", "code/__torch__.py": b"import os\n"})),
    ),
    "an unpickled class of numpy": Hostile(
        "pickle",
        raw(
            lambda folder: in_archive(
                call(name("numpy._core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b"(I0\nt", b"Vb\n") + b"."
            )
        ),
    ),
}


# Strings that some reader takes for more.

GADGETS: dict[str, Any] = {
    "_instantiator": {"_instantiator": "os.system", "_class_path": "os.system"},
    "_class_path": {"_class_path": "planted_module.Net", "init_args": {"path": "x"}},
    "_target_ os.system": {"_target_": "os.system", "command": "true"},
    "_target_ torch.load": {"_target_": "torch.load", "f": "{folder}/objects.pt", "weights_only": False},
    "_target_ numpy.load": {"_target_": "numpy.load", "file": "{folder}/objects.npy", "allow_pickle": True},
    "_target_ torch.hub.load": {"_target_": "torch.hub.load", "repo_or_dir": "{folder}", "model": "net", "source": "local"},
    "_target_ Path.write_text": {"_target_": "pathlib.Path.write_text", "self": "{folder}/../elsewhere", "data": "x"},
    "_target_ a planted module": {"_target_": "planted_module.Net"},
    "_target_ eval": {"_target_": "builtins.eval", "_args_": ["__import__('sys').audit('planted')"]},
    "_target_ of timm": {"_target_": "timm.models.load_state_dict", "checkpoint_path": "{folder}/x.pth", "weights_only": False},
    "_target_ of hydra": {"_target_": "hydra.utils.get_method", "path": "os.system"},
    "_target_ of a logger": {"_target_": "pytorch_lightning.loggers.WandbLogger", "save_dir": "{folder}/../elsewhere"},
    "_target_ of a list": {"_target_": ["os.system"]},
    "an environment variable": {"planted": "${oc.env:PLANTED_SECRET}"},
    "an environment variable, escaped": {"planted": r"$\{oc.env\:PLANTED_SECRET\}"},
    "a resolver of evaluations": {"planted": "${eval:__import__('sys').audit('planted')}"},
    "a loop of references": {"planted": "${planted}"},
    "an old reference": {"planted": "${env:PLANTED_SECRET}"},
}


def filled(gadget: Any, folder: Path) -> Any:
    return json.loads(json.dumps(gadget).replace("{folder}", str(folder)))


def everywhere(node: Any, gadget: dict[str, Any], depth: int = 0) -> Any:
    """The gadget in every dictionary of a tree but the outermost, where a reader looks at keys of its own."""
    if isinstance(node, dict):
        inner = {key: everywhere(value, gadget, depth + 1) for key, value in node.items()}
        return {**inner, **gadget} if depth else {**inner, "planted_node": gadget}
    return [everywhere(one, gadget, depth + 1) for one in node] if isinstance(node, list) else node


def in_text(gadget: Any) -> Callable[[Path, Path], bytes]:
    def make(folder: Path, good: Path) -> bytes:
        objects(folder)
        held = parsed(good)
        return written(good, everywhere(held if isinstance(held, dict) else {}, filled(gadget, folder)))

    return make


def in_state(gadget: Any) -> Callable[[Path, Path], bytes]:
    def make(folder: Path, good: Path) -> bytes:
        hyper = {"hyper_parameters": filled(gadget, folder), "hparams_name": "kwargs"}
        return saved({**good_state(good), **hyper, "callbacks": {"planted_module.Callback": filled(gadget, folder)}})

    return make


def parsed(good: Path) -> Any:
    try:
        return yaml.safe_load(good.read_text()) if good.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}


def written(good: Path, content: Any) -> bytes:
    """As YAML, or as JSON where that stood there."""
    if good.suffix in (".json", ".jsonl"):
        return json.dumps(content).encode() + b"\n"
    return yaml.safe_dump(content, sort_keys=False).encode()


# Words and keys of a run folder.


def changed(change: Callable[[dict[str, Any], Path], Any]) -> Callable[[Path, Path], bytes]:
    def make(folder: Path, good: Path) -> bytes:
        held = parsed(good)
        content = held if isinstance(held, dict) else {}
        for key, empty in (("run", {}), ("data", {}), ("encoder", {}), ("logger", {})):
            if not isinstance(content.get(key), dict):
                content[key] = dict(empty)
        if not isinstance(content["run"].get("words"), list):
            content["run"]["words"] = []
        change(content, folder)
        return written(good, content)

    return make


def with_word(text: str) -> Callable[[Path, Path], bytes]:
    return changed(lambda content, folder: content["run"]["words"].append(text.replace("{folder}", str(folder))))


CONFIGS: dict[str, Hostile] = {
    "a word that loads a file": Hostile(
        "yaml",
        changed(
            lambda content, folder: (
                (folder / "evil.yaml").write_text("_target_: planted_module.Net\n"),
                content["run"]["words"].append(f"+data@pretext=../../../../../../../../../..{folder}/evil"),
            )
        ),
    ),
    "a word that calls": Hostile("yaml", with_word("pretext._target_=planted_module.Net")),
    "a word that calls within": Hostile("yaml", with_word("+data.more={_target_: planted_module.Net}")),
    "a word that looks up": Hostile("yaml", with_word("data_root=${oc.env:PLANTED_SECRET}")),
    "a word that looks up, escaped": Hostile("yaml", with_word(r"data_root=$\{oc.env\:PLANTED_SECRET\}")),
    "a word of Hydra's": Hostile("yaml", with_word("hydra.searchpath=[file://{folder}]")),
    "a word of Hydra's launcher": Hostile("yaml", with_word("+hydra/launcher=planted")),
    "a word that logs elsewhere": Hostile("yaml", with_word("logger.csv.folder={folder}/../elsewhere")),
    "a word that logs to others": Hostile("yaml", with_word("logger=wandb")),
    "a word that caches elsewhere": Hostile(
        "yaml",
        changed(
            lambda content, folder: content["run"]["words"].extend(["data.cache=true", f"data.cache_dir={folder}/../elsewhere"])
        ),
    ),
    "a word that fetches": Hostile(
        "yaml",
        changed(
            lambda content, folder: content["run"]["words"].extend(["data=cifar100", "data.path=nowhere", "data.download=true"])
        ),
    ),
    "data that are fetched": Hostile(
        "yaml",
        changed(
            lambda content, folder: content["data"].update(
                _target_="ssl_framework.data.torchvision_dataset", name="CIFAR100", path="nowhere", download=True
            )
        ),
    ),
    "data of the hub": Hostile(
        "yaml",
        changed(lambda content, folder: content["data"].update(_target_="ssl_framework.data.parquet", path="planted/planted")),
    ),
    "an encoder that is fetched": Hostile(
        "yaml",
        changed(
            lambda content, folder: content["encoder"].update(
                _target_="ssl_framework.encoders.timm_encoder", name="resnet18", pretrained=True
            )
        ),
    ),
    "a cache elsewhere": Hostile(
        "yaml", changed(lambda content, folder: content["data"].update(cache=True, cache_dir=f"{folder}/../elsewhere"))
    ),
    "a log elsewhere": Hostile(
        "yaml",
        changed(
            lambda content, folder: content["logger"].update(
                more={"_target_": "ssl_framework.commands.metrics_file.MetricsFile", "folder": f"{folder}/../elsewhere"}
            )
        ),
    ),
    "a run folder elsewhere": Hostile(
        "yaml",
        changed(
            lambda content, folder: content["run"].update(
                dir=f"{folder}/../elsewhere", words=[*content["run"]["words"], f"run.dir={folder}/../elsewhere"]
            )
        ),
    ),
    "a choice elsewhere": Hostile(
        "yaml", changed(lambda content, folder: content["run"].update(choices={"data": "../../../evil"}))
    ),
    "kinds of values that ours have not": Hostile(
        "yaml",
        changed(
            lambda content, folder: content.update(
                data=7, encoder=[], pretext="x", trainer=None, run={"words": [3], "choices": [], "verb": {}}
            )
        ),
    ),
    "markup in names": Hostile(
        "yaml", changed(lambda content, folder: content.update(title=HTML, classes=[HTML], history={"pretext": HTML}))
    ),
}


# Text.

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


def text(content: str | bytes) -> Callable[[Path, Path], bytes]:
    held = content.encode() if isinstance(content, str) else content
    return lambda folder, good: held


def tagged(tag: str) -> Callable[[Path, Path], bytes]:
    def make(folder: Path, good: Path) -> bytes:
        held = good.read_bytes() if good.suffix == ".yaml" and good.is_file() else b""
        return held + f"\nplanted: {tag}\n".replace("{folder}", str(folder)).replace("{code}", code(folder)).encode()

    return make


def unsafe_yaml(file: Path) -> Any:
    return yaml.unsafe_load(file.read_text())


TEXTS: dict[str, Hostile] = {
    "a tag that calls": Hostile("yaml", tagged("!!python/object/apply:os.system ['touch {folder}/trace']"), unsafe_yaml),
    "a tag that evaluates": Hostile("yaml", tagged('!!python/object/apply:builtins.eval ["{code}"]'), unsafe_yaml),
    "a tag that makes": Hostile("yaml", tagged("!!python/object/new:planted_module.Net []"), unsafe_yaml),
    "a tag that imports": Hostile("yaml", tagged("!!python/module:planted_module ''"), unsafe_yaml),
    "a tag that names": Hostile("yaml", tagged("!!python/name:planted_module.Net ''"), unsafe_yaml),
    "a tag of tuples": Hostile("yaml", tagged("!!python/tuple [1, 2]")),
    "a tag of its own": Hostile("yaml", tagged("!include /etc/passwd")),
    "a billion laughs": Hostile("yaml", text(LAUGHS)),
    "a merge of itself": Hostile("yaml", text("a: &a\n  <<: *a\n")),
    "a depth without end": Hostile("yaml", text("a: " + "[" * 20_000)),
    "a date that is none": Hostile("yaml", text("a: 2020-13-45\n")),
    "a number without end": Hostile("yaml", text("a: " + "9" * 10_000)),
    "a key that is a list": Hostile("yaml", text("? [a, b]\n: c\n")),
    "another alphabet": Hostile("yaml", text("a: b".encode("utf-16"))),
    "zeros": Hostile("yaml", text(b"\0" * 64)),
    "nothing": Hostile("yaml", text(b"")),
    "more than there is room for": Hostile("yaml", text("a: " + "x" * 2_000_000)),
    "letters that terminals obey": Hostile("yaml", text('format: "\\e]0;planted\\a\\e[2J"\n')),
    "JSON without end": Hostile("json", text("[" * 100_000)),
    "JSON of a number without end": Hostile("json", text('{"a": ' + "9" * 10_000 + "}")),
    "JSON that is a list": Hostile("json", text("[1, 2]")),
    "JSON that is null": Hostile("json", text("null")),
    "JSON twice": Hostile("json", text('{"a": 1}{"a": 2}')),
    "JSON with NaN": Hostile("json", text('{"accuracy": NaN, "step": Infinity, "positions": [NaN]}')),
    "JSON of odd kinds": Hostile(
        "json",
        text(
            json.dumps(
                {
                    "devices": 3,
                    "packages": [],
                    "threads": "x",
                    "positions": {},
                    "ranks": None,
                    "step": -1,
                    "images": {},
                    "annotations": 1,
                    "categories": [{}],
                    "format": "ssl_framework.checkpoint/1",
                    "files": {"../../etc/passwd": {"bytes": 1, "sha256": ""}},
                    "method": [],
                    "budget": {},
                    "seed": "x",
                    "image_mean": "x",
                    "pixels": "../../elsewhere",
                }
            )
        ),
    ),
    "a manifest that leads elsewhere": Hostile(
        "json",
        lambda folder, good: written(
            good, {**_mapping(parsed(good)), "files": {"../../../precious/file": {"bytes": 4, "sha256": "0" * 64}}}
        ),
    ),
    "JSON with markup": Hostile(
        "json",
        lambda folder, good: written(
            good,
            {**_mapping(parsed(good)), "method": HTML, "na": HTML, "platform": HTML, "commit": HTML, "packages": {HTML: HTML}},
        ),
    ),
    "a table of markup": Hostile("csv", text(f"step,{HTML}\n0,{HTML}\n=cmd|' /C calc'!A0,1\n")),
    "a table with a giant field": Hostile("csv", text("step,loss\n0," + "9" * 200_000 + "\n")),
    "a table with zeros": Hostile("csv", text(b"step,loss\n0,\0\n")),
    "a table of ragged rows": Hostile("csv", text("step,loss\n0,1,2,3\n1\n,,,,\n")),
    "a table of other letters": Hostile("csv", text(b"step,loss\n\xff\xfe,\xc3\n")),
}


# Archives, arrays, tensors, tables and images.


def bomb(folder: Path, good: Path) -> bytes:
    return archive({"archive/data.pkl": b"}.", "archive/version": b"3", "archive/data/0": bytes(20_000_000)}, compressed=True)


def overlapping(folder: Path, good: Path) -> bytes:
    """Many names of one member: what stands in the directory is a thousand times what stands in the file."""
    content = bytearray(archive({f"archive/data/{n:04}": b"x" * 1000 for n in range(100)}))
    at = 0
    while (at := content.find(b"PK\x01\x02", at)) >= 0:
        content[at + 42 : at + 46] = struct.pack("<I", 0)
        content[at + 20 : at + 28] = struct.pack("<II", 1_000_000, 1_000_000)
        at += 46
    return bytes(content)


def twice(folder: Path, good: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written_:
        for content in (call(name("builtins", "eval"), word(code(folder))) + b".", b"}."):
            entry = zipfile.ZipInfo("archive/data.pkl")
            written_.writestr(entry, content)
    return file.getvalue()


def linked_member(folder: Path, good: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written_:
        entry = zipfile.ZipInfo("archive/data.pkl")
        entry.external_attr = 0o120777 << 16
        written_.writestr(entry, "/etc/passwd")
    return file.getvalue()


def npy(header: str, body: bytes = b"") -> bytes:
    content = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content + body


def tensors(header: Any, body: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    held = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(held) if length is None else length) + held + body


def one(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def flipped(folder: Path, good: Path) -> bytes:
    held = bytearray(good.read_bytes() if good.is_file() else b"x" * 100)
    held[-1] ^= 1
    return bytes(held)


def cut(folder: Path, good: Path) -> bytes:
    held = good.read_bytes() if good.is_file() else b"x" * 100
    return held[: len(held) // 2]


def within(tag: str) -> Callable[[Path, Path], bytes]:
    """The description inside the tensors, in place of the one beside them."""

    def make(folder: Path, good: Path) -> bytes:
        said = tagged(tag)(folder, good).decode("latin1")
        return tensors({"__metadata__": {"description": said}, "x": one("F32", [4], 0, 16)})

    return make


def array_load(file: Path) -> Any:
    found = np.load(file, allow_pickle=True)
    return [found[key] for key in found.files] if hasattr(found, "files") else found


def saved_objects(folder: Path, good: Path) -> bytes:
    content = objects(folder).read_bytes()
    return archive({"images.npy": content, "targets.npy": content}) if good.suffix == ".npz" else content


def packed_objects(folder: Path, good: Path) -> bytes:
    content = objects(folder).read_bytes()
    return archive({"images.npy": content, "targets.npy": content})


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%touch trace) (w) file\nshowpage\n%%EOF\n"


def png(width: int, height: int) -> bytes:
    """A picture that claims to be of any size."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def pil_load(file: Path) -> Any:
    from PIL import Image

    with Image.open(file) as image:
        return image.load()


BINARIES: dict[str, Hostile] = {
    "an archive that unfolds": Hostile("zip", bomb),
    "an archive whose members overlap": Hostile("zip", overlapping),
    "an archive that says a thing twice": Hostile("zip", twice),
    "an archive with a link": Hostile("zip", linked_member),
    "an archive that leads elsewhere": Hostile(
        "zip", raw(lambda folder: archive({"../../elsewhere": b"x", "/tmp/elsewhere": b"x"}))
    ),
    "an archive behind other bytes": Hostile("zip", raw(lambda folder: b"MZ" + b"\0" * 500 + in_archive(b"}."))),
    "an archive without a directory": Hostile("zip", raw(lambda folder: in_archive(b"}.")[:-30])),
    "an array of objects": Hostile("array", saved_objects, array_load),
    "an archive of arrays of objects": Hostile("array", packed_objects, array_load),
    "an array whose head is code": Hostile("array", text(npy("__import__('sys').audit('planted')"))),
    "an array larger than the memory": Hostile(
        "array", text(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 28, 28)}"))
    ),
    "an array of negative size": Hostile(
        "array", text(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8)}", b"x" * 8))
    ),
    "an array of another kind": Hostile("array", text(npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}"))),
    "an array that is cut short": Hostile(
        "array", text(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9, 8, 8)}", b"x"))
    ),
    "arrays that unfold": Hostile(
        "array",
        raw(
            lambda folder: archive(
                {"images.npy": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (20000000,)}") + bytes(20_000_000)},
                compressed=True,
            )
        ),
    ),
    "tensors cut short": Hostile("safetensors", cut),
    "tensors with a flipped bit": Hostile("safetensors", flipped),
    "tensors of a huge head": Hostile("safetensors", text(tensors(b"{}", length=1 << 60))),
    "tensors without a head": Hostile("safetensors", text(b"\0" * 4)),
    "tensors whose head is no JSON": Hostile("safetensors", text(tensors(b"{not json"))),
    "tensors whose head has no end": Hostile("safetensors", text(tensors(b'{"a":' * 5000))),
    "tensors beyond their file": Hostile("safetensors", text(tensors({"x": one("F32", [400], 0, 1600)}))),
    "tensors that overlap": Hostile("safetensors", text(tensors({"x": one("F32", [4], 0, 16), "y": one("F32", [4], 0, 16)}))),
    "tensors backwards": Hostile("safetensors", text(tensors({"x": one("F32", [4], 16, 0)}))),
    "tensors of an unknown kind": Hostile("safetensors", text(tensors({"x": one("PY_OBJECT", [4], 0, 16)}))),
    "tensors of a giant shape": Hostile("safetensors", text(tensors({"x": one("F32", [1 << 31, 1 << 31, 4], 0, 16)}))),
    "tensors that are a pickle": Hostile(
        "safetensors", raw(lambda folder: call(name("builtins", "eval"), word(code(folder))) + b"."), unpickled
    ),
    "tensors with a tag inside": Hostile("safetensors", within("!!python/object/apply:os.system ['touch {folder}/trace']")),
    "a table cut short": Hostile("table", cut),
    "a table that is a pickle": Hostile("table", raw(lambda folder: b"PAR1" + CALLS["os.system"](folder) + b".PAR1"), None),
    "a table of a huge foot": Hostile("table", text(b"PAR1" + b"\0" * 64 + struct.pack("<I", 1 << 31) + b"PAR1")),
    "PostScript": Hostile("image", text(POSTSCRIPT), pil_load),
    "a picture of 400 megapixels": Hostile("image", text(png(20_000, 20_000))),
    "a picture without pixels": Hostile("image", text(png(0, 0))),
    "a drawing that fetches": Hostile(
        "image",
        text(
            b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg><image href="http://127.0.0.1/x"/>&x;</svg>'
        ),
    ),
}


def link_elsewhere(folder: Path, good: Path) -> None:
    target = folder.parent / "precious" / "file"
    good.unlink(missing_ok=True)
    good.symlink_to(target)


def link_to_itself(folder: Path, good: Path) -> None:
    good.unlink(missing_ok=True)
    good.symlink_to(good)


def pipe(folder: Path, good: Path) -> None:
    good.unlink(missing_ok=True)
    os.mkfifo(good)


def a_folder(folder: Path, good: Path) -> None:
    good.unlink(missing_ok=True)
    good.mkdir()


LINKS: dict[str, Hostile] = {
    "a link elsewhere": Hostile("link", link_elsewhere),
    "a link to itself": Hostile("link", link_to_itself),
    "a pipe": Hostile("link", pipe),
    "a folder in its place": Hostile("link", a_folder),
}

FILES: dict[str, Hostile] = {
    **PICKLES,
    **{f"text with {one}": Hostile("yaml", in_text(gadget)) for one, gadget in GADGETS.items()},
    **{f"a checkpoint with {one}": Hostile("pickle", in_state(gadget)) for one, gadget in list(GADGETS.items())[:8]},
    **CONFIGS,
    **TEXTS,
    **BINARIES,
    **LINKS,
}
