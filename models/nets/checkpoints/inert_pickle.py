"""What a pickle says, without doing any of it: plain values, and the tensors it declares.

Knows nothing of files or archives. Opcodes come from the standard library's reader and run on a stack of our own.
Nothing is imported, looked up or called for a pickle: of the names in it, nine that rebuild a tensor or a mapping
are understood, every other one, and whatever is made with it, becomes inert: an `Inert` that holds what it was given.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol

import torch

_MOST_DIMENSIONS = 64  # torch's own limit


class PickleError(ValueError):
    """Not a whole pickle, or one that declares what no tensor can be."""


class Inert:
    """Stands where a pickle has an object that is no plain value.

    state  what the pickle would have set in it: plain values, which make no object
    """

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return "INERT"


INERT = Inert()


class Name(NamedTuple):
    """A class or function a pickle names. It is compared with known ones, never looked up."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers that lie elsewhere in the file: `count` of them, of one type, under a key.

    start  where in them a tensor counts from
    """

    key: str
    dtype: torch.dtype
    count: int
    start: int = 0


@dataclass(frozen=True, eq=False)
class Declared:
    """A tensor as the pickle declares it; it lies within its storage. offset and stride in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Loaded(NamedTuple):
    """value: dicts, lists, tuples, strings, numbers, `Declared` and `Inert`; storages by key."""

    value: object
    storages: dict[str, Storage]


class Source(Protocol):
    """Where a pickle is read from: as many bytes as asked, or fewer at the end."""

    def read(self, count: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


def load(stream: Source) -> Loaded:
    """The one pickle that begins here; the stream then stands behind it. Raises PickleError."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]  # these three are what it uses
            machine.step(opcode.name, argument)
        return Loaded(machine.stack.pop(), machine.storages)
    except (ValueError, IndexError, KeyError) as error:
        raise PickleError(f"not a whole pickle ({str(error)[:80]})") from None


class _Machine:
    """The stack, the marks on it, and what was numbered for later."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        """One opcode, by its name in `pickletools`."""
        if name in _VALUES:
            self.push(argument)
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name]())
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            self.stack[-count:] = [tuple(self.stack[-count:])] if len(self.stack) >= count else _short_stack()
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise PickleError(f"opcode {name} has no place in a checkpoint")

    def items(self) -> list[Any]:
        """What was pushed since the last mark, which is taken away."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.marked.pop()

    def pop_mark(self, _: Any) -> None:
        self.items()

    def put(self, number: int | None) -> None:
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def global_name(self, both: str) -> None:
        module, _, name = both.partition(" ")
        self.push(Name(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(Name(module, name) if isinstance(module, str) and isinstance(name, str) else INERT)

    def call(self, _: Any) -> None:
        """REDUCE and NEWOBJ: a tensor or a mapping where the name is one of ours, else INERT."""
        arguments, what = self.stack.pop(), self.stack.pop()
        self.push(_made(what, arguments))

    def call_with_keywords(self, _: Any) -> None:
        del self.stack[-3:]
        self.push(INERT)

    def inert(self, _: Any) -> None:
        self.push(INERT)

    def inert_from_items(self, _: Any) -> None:
        self.items()
        self.push(INERT)

    def build(self, _: Any) -> None:
        """An object's state: of one that is not made it is kept, to be read; otherwise dropped."""
        state = self.stack.pop()
        if not self.stack:
            _short_stack()
        if isinstance(state, dict):
            self._keep(state)

    def _keep(self, state: dict[Any, Any]) -> None:
        if isinstance(target := self.stack[-1], Inert) and target is not INERT:
            target.state.update(state)

    def append(self, _: Any) -> None:
        self.extend([self.stack.pop()])

    def appends(self, _: Any) -> None:
        self.extend(self.items())

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set([key, value])

    def set_items(self, _: Any) -> None:
        self.set(self.items())

    def set(self, items: list[Any]) -> None:
        if isinstance(target := self.stack[-1], dict):
            target.update(_mapping(items))
        else:
            self._keep(_mapping(items))

    def persistent(self, _: Any) -> None:
        """A storage, or in old files the source of a class, which is dropped."""
        said = self.stack.pop()
        storage: Storage | Inert = INERT
        match said:
            case ("storage", Name() as kind, str() | int() as key, _, int(count), *view) if kind in _DTYPES:
                root = Storage(str(key), _DTYPES[kind], count)
                known = self.storages.setdefault(root.key, root)
                if count < 0 or (known.dtype, known.count) != (root.dtype, count):
                    raise PickleError(f"storage {root.key[:20]} is declared in two ways")
                storage = _view(root, view[0] if view else None)
        self.push(storage)


def _short_stack() -> list[Any]:
    raise PickleError("an opcode finds too little on the stack")


def _mapping(items: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn; of the keys those that names can be made of."""
    if len(items) % 2:
        raise PickleError("a key without a value")
    return {k: v for k, v in zip(items[::2], items[1::2], strict=True) if isinstance(k, str | int)}


def _view(root: Storage, view: object) -> Storage:
    match view:
        case None:
            return root
        case (_, int(start), int(count)) if min(start, count) >= 0 and start + count <= root.count:
            return Storage(root.key, root.dtype, root.count, start)
    raise PickleError(f"a part of storage {root.key[:20]} lies outside it")


def _made(what: object, arguments: object) -> object:
    if not isinstance(what, Name) or not isinstance(arguments, tuple):
        return INERT
    if what == _FROM_SUBCLASS and len(arguments) > 2 and isinstance(arguments[2], tuple):
        what, arguments = arguments[0], arguments[2]
    return _BUILDERS[what](arguments) if isinstance(what, Name) and what in _BUILDERS else Inert()


def _tensor(arguments: tuple[Any, ...]) -> object:
    match arguments:
        case (Inert(), *_):
            return INERT  # of a type that torch has and we do not
        case (Storage() as storage, int(offset), list() | tuple() as size, list() | tuple() as stride, *_):
            numbers = (offset, *size, *stride)
            if not all(isinstance(n, int) and 0 <= n < 2**48 for n in numbers) or len(size) != len(stride):
                raise PickleError("a tensor's size is no list of numbers")
            if len(size) > _MOST_DIMENSIONS:
                raise PickleError(f"a tensor of {len(size)} dimensions")
            last = storage.start + offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
            if prod(size) and (last >= storage.count or prod(size) > storage.count):
                raise PickleError(f"a tensor of {prod(size)} elements, where {storage.count} are stored")
            return Declared(storage, storage.start + offset, tuple(size), tuple(stride))
    raise PickleError("a tensor that is declared as none can be")


def _parameter(arguments: tuple[Any, ...]) -> object:
    return arguments[0] if arguments and isinstance(arguments[0], Declared) else INERT


def _dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Of pairs, as Python 2 wrote an OrderedDict; empty otherwise, its items come one by one."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
    whole = [pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
    return _mapping([part for pair in whole for part in pair])


def _size(arguments: tuple[Any, ...]) -> object:
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], tuple) else INERT


_FROM_SUBCLASS = Name("torch._tensor", "_rebuild_from_type_v2")
_BUILDERS: dict[Name, Callable[[tuple[Any, ...]], object]] = {
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    Name("torch", "Size"): _size,
    Name("collections", "OrderedDict"): _dict,
    Name("collections", "defaultdict"): _dict,
    Name("builtins", "dict"): _dict,
    Name("__builtin__", "dict"): _dict,
}
_DTYPES = {
    Name(module, f"{name}Storage"): dtype
    for module in ("torch", "torch.cuda")
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_VALUES = frozenset((*_TEXTS, *_BYTES, *_NUMBERS))
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: INERT,
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, argument: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, n: machine.push(machine.memo[n])),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.inert),
    **dict.fromkeys(("INST", "OBJ", "FROZENSET"), _Machine.inert_from_items),
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "ADDITEMS": lambda machine, argument: machine.extend(machine.items()),
    "BUILD": _Machine.build,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": lambda machine, argument: machine.push(machine.stack[-1]),
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "BINPERSID": _Machine.persistent,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "LIST": lambda machine, argument: machine.push(machine.items()),
    "TUPLE": lambda machine, argument: machine.push(tuple(machine.items())),
    "DICT": lambda machine, argument: machine.push(_mapping(machine.items())),
}
