"""Progress of long work, on standard error."""

from __future__ import annotations


class Progress:
    """A bar that names the stage; silent where standard error is no terminal, or with ``quiet``.

    An instance is a listener of :func:`graphkiln.driver.compile`.
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            console=console, transient=True, disable=quiet or not console.is_terminal,
        )  # fmt: skip
        self._stage = "import"
        self._task = self._bar.add_task(self._stage, total=1)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        changed, self._stage = stage != self._stage, stage
        self._bar.update(
            self._task, description=stage, completed=done, total=max(total, 1), refresh=changed
        )
