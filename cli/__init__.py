"""The command line: ``graphkiln compile | quantize | prune | run | inspect | check | bench | ...``.

Exit codes: 0 fine, 1 the model, an input or the machine is at fault, 2 usage.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

import click

from ..errors import GraphkilnError, UsageError

COMMANDS = {
    "compile": "Compile an ONNX model into an artifact.",
    "quantize": "Quantize a model to 8-bit integers, or its weights to few bits.",
    "distill": "Train a small or quantized model to give what another gives.",
    "prune": "Remove channels, units and heads of a model.",
    "run": "Run an artifact on given or random inputs.",
    "inspect": "Show what is in a model or an artifact.",
    "check": "Say whether a model compiles, and whether the result is right.",
    "bench": "Time a model and its kernels, alone or against onnxruntime.",
    "ops": "Print the table of supported ops.",
    "rewrites": "Print the table of rewrites and what they promise about numbers.",
    "targets": "List targets and what this machine is.",
}


class _Lazy(click.Group):
    """Loads a subcommand's file when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}_command", __name__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graphkiln", prog_name="graphkiln")
def group() -> None:
    """graphkiln: an ahead-of-time compiler for ONNX models."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = group.main(arguments, prog_name="graphkiln", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _stop("interrupted", 130)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except Exception as e:
        if os.environ.get("GRAPHKILN_DEBUG"):
            raise
        _stop(describe(e), 2 if _is_usage(e) else 1)


def _terminate(_signal: int, _frame: object) -> None:
    # Unwinding removes temporary files; the default action would leave them.
    sys.exit(128 + signal.SIGTERM)


def _stop(message: str, code: int) -> None:
    for line in message.splitlines():
        click.echo(f"graphkiln: {line}", err=True)
    _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """What standard output cannot take must not fail a second time when Python exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _is_usage(error: Exception) -> bool:
    """Options that make no sense are found out where they are used."""
    return isinstance(error, UsageError)


def describe(error: Exception) -> str:
    """An error as a person should read it: one line a reason, no traceback."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return reason if error.filename is None else f"{error.filename}: {reason}"
    text = str(error).strip()
    if text and isinstance(error, GraphkilnError):
        return text
    if isinstance(error, MemoryError):
        return "out of memory"
    line = text.splitlines()[0] if text else "no message"
    return f"internal error ({type(error).__name__}): {line}; set GRAPHKILN_DEBUG=1 for the trace"
