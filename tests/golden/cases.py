"""Every case there is a function for, by name: the functions of `cases_*.py` that are called as the case."""

from tests.golden import cases_cause, cases_picie, cases_stego
from tests.golden.runner import Function

FUNCTIONS: dict[str, Function] = {
    name: function
    for module, prefix in ((cases_stego, "stego_"), (cases_picie, "picie_"), (cases_cause, "cause_"))
    for name, function in vars(module).items()
    if name.startswith(prefix)
}
