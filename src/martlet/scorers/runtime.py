"""An ONNX network, opened when it is first run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Array, BundleError, num_threads


@dataclass(frozen=True, eq=False)
class Runtime:
    """A network as the bytes of its ONNX file; its weights lie inside.

    Attributes:
        model: the file's content.
        inputs: rank of each input by name; the network must take these and no others.
    """

    model: bytes
    inputs: Mapping[str, int]

    def run(self, **arrays: Array) -> NDArray[np.float32]:
        """Return the first output, float32, for the named inputs.

        Raises:
            BundleError: ONNX Runtime cannot open the network, or refuses the arrays.
        """
        session = self._session
        try:
            (output, *_) = session.run(None, arrays)
        except Exception as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise BundleError(f"the network failed on {shapes}: {error}") from error
        return np.asarray(output, np.float32)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads()
        # A waiting thread that spins would take its core from the other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        providers = ["CPUExecutionProvider"]
        try:
            session = onnxruntime.InferenceSession(self.model, options, providers=providers)
        except Exception as error:  # ONNX Runtime's own errors share no other parent.
            raise BundleError(
                f"ONNX Runtime {onnxruntime.__version__} cannot open the network: {error}; "
                "export it with its weights inside the file and an opset that this version reads"
            ) from error
        found = {one.name: len(one.shape) for one in session.get_inputs()}
        if found != dict(self.inputs):
            raise BundleError(
                f"the network takes {_say(found)}: expected {_say(self.inputs)} (name and rank)"
            )
        return session


def _say(inputs: Mapping[str, int]) -> str:
    return ", ".join(f"{name} of rank {rank}" for name, rank in sorted(inputs.items())) or "nothing"
