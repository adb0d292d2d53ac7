"""What became of a task, as it is sent between processes: not every exception can be, and some end the receiver."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from umr import errors
from umr.errors import UmrError


@dataclass(frozen=True)
class Outcome:
    """Of one task.

    Attributes:
        value: what it gave.
        failure: name of the error's class, `""` when all is well.
        message: of the error; of one that is a bug of ours its traceback.
    """

    value: Any = None
    failure: str = ""
    message: str = ""

    @classmethod
    def of(cls, action: Callable[[], Any]) -> Outcome:
        """Do it."""
        try:
            return cls(action())
        except UmrError as error:
            return cls(None, type(error).__name__, str(error))
        except Exception:
            return cls(None, "RuntimeError", traceback.format_exc())

    def checked(self) -> Any:
        """The value, or the error that the worker met, raised here."""
        if self.failure:
            raise getattr(errors, self.failure, RuntimeError)(self.message)
        return self.value
