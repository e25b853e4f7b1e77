"""What became of each photo, and the count of it all."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from gfprestore.errors import ExitCode
from gfprestore.job import Job
from gfprestore.stagetimes import StageTimes


@dataclass(frozen=True)
class FaceRecord:
    """What was done to one face."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in source photo pixel centres, upright."""

    score: float
    """Detector's confidence, 0 to 1."""

    action: Literal["restored", "kept"]
    """Whether the face was changed or left as it was."""

    reason: str = ""
    """Why a face was kept, or why its strength was lowered."""

    strength: float = 1.0
    """Share of the restoration in the result, 0 to 1."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """Further facts that JSON can hold, such as `identity_degrees`."""


def on_page(face: FaceRecord, page: int) -> FaceRecord:
    """The record of a face on a further page, which its facts name, from 2."""
    return replace(face, facts={"page": page, **face.facts})


@dataclass(frozen=True)
class RefusedRecord:
    """Something that was taken for a face and left alone as none."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in source photo pixel centres, upright."""

    score: float
    """Detector's confidence, 0 to 1."""

    reason: str
    """Why it was refused, as half a sentence."""

    page: int = 1
    """Page of the photo, from 1."""


@dataclass(frozen=True)
class Restored:
    """The result of this job is written."""

    job: Job
    """The photo."""

    faces: tuple[FaceRecord, ...]
    """Every face that was found; none for a photo that was only enlarged."""

    size: tuple[int, int]
    """Width and height of the result in pixels."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time spent by stage: those of `gfprestore.stagetimes.STEPS` that there was something to do in."""

    warnings: tuple[str, ...] = ()
    """One sentence each."""

    refused: tuple[RefusedRecord, ...] = ()
    """What was taken for a face and is none to restore, such as a profile or a face seen in an eye."""

    is_coloured: bool = False
    """Whether the photo, or one of its pages, was given colours."""

    def decisions(self) -> list[str]:
        """One line for each face that was not simply restored, and why."""
        told = [(face.box, f"face {face.action}", face.reason) for face in self.faces if face.reason]
        told += [(item.box, "no face", item.reason) for item in self.refused]
        return [f"{what} at ({', '.join(f'{side:.0f}' for side in box)}): {why}" for box, what, why in told]


@dataclass(frozen=True)
class Skipped:
    """Nothing was done for this job, on purpose."""

    job: Job
    """The photo."""

    reason: str
    """Why, such as that the target exists."""


@dataclass(frozen=True)
class Failed:
    """This photo could not be restored; nothing is written for it."""

    job: Job
    """The photo."""

    error: str
    """One sentence."""


Outcome = Restored | Skipped | Failed


@dataclass
class Report:
    """Counts outcomes as they come."""

    planned: int = 0
    """Number of jobs of the run; those without an outcome are `unreached`."""

    restored: int = 0
    """Photos written in which at least one face was found."""

    without_face: int = 0
    """Photos written in which no face was found."""

    skipped: int = 0
    """Photos left alone on purpose."""

    faces: int = 0
    """Faces restored, in all photos."""

    faces_kept: int = 0
    """Faces found and left as they were."""

    failures: list[Failed] = field(default_factory=list)
    """Photos that failed, in order."""

    times: StageTimes | None = None
    """Sums the time of every stage; None where nobody asked."""

    started: float = field(default_factory=time.monotonic)
    """Time at which the run began, on the monotonic clock, in seconds."""

    def add(self, outcome: Outcome) -> None:
        """Counts one outcome."""
        if isinstance(outcome, Failed):
            self.failures.append(outcome)
        elif isinstance(outcome, Skipped):
            self.skipped += 1
        else:
            changed = sum(face.action == "restored" for face in outcome.faces)
            self.faces += changed
            self.faces_kept += len(outcome.faces) - changed
            if outcome.faces:
                self.restored += 1
            else:
                self.without_face += 1
            if self.times is not None:
                self.times.add(outcome.seconds)

    @property
    def failed(self) -> int:
        """Number of photos that failed."""
        return len(self.failures)

    @property
    def done(self) -> int:
        """Number of photos with an outcome."""
        return self.restored + self.without_face + self.skipped + self.failed

    @property
    def unreached(self) -> int:
        """Number of planned photos without an outcome."""
        return max(0, self.planned - self.done)

    @property
    def seconds(self) -> float:
        """Time since the run began."""
        return time.monotonic() - self.started

    @property
    def exit_code(self) -> ExitCode:
        """Exit status that the outcomes call for.

        0 when every photo was restored or skipped, and 3 when at least one failed. The other codes end a run early and
        come from its exception: 2 the request, 4 no photos, 5 weights, 6 device, 7 output, 130 Ctrl-C, 143 terminated.
        """
        return ExitCode.SOME_FAILED if self.failures else ExitCode.OK

    def summary(self) -> str:
        """One line that counts the run, without its failures' reasons."""
        detail = [_count(self.faces, "face")]
        if self.faces_kept:
            detail.append(f"{self.faces_kept} kept as {'it was' if self.faces_kept == 1 else 'they were'}")
        first = f"{_count(self.restored, 'photo')} restored"
        parts = [f"{first} ({', '.join(detail)})" if self.restored else first]
        for number, what in (
            (self.without_face, "without a face"),
            (self.skipped, _skipped(self.skipped)),
            (self.failed, "failed"),
            (self.unreached, "not reached"),
        ):
            if number:
                parts.append(f"{number} {what}")
        return ", ".join(parts) + f", in {duration(self.seconds)}"


def _skipped(number: int) -> str:
    results, them = ("its result exists", "it") if number == 1 else ("their results exist", "them")
    return f"skipped since {results} (--overwrite writes {them} anew)"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time span in words.

    Example:
        >>> duration(0.3), duration(42.4), duration(185), duration(7500)
        ('0.3 s', '42 s', '3 min 5 s', '2 h 5 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
