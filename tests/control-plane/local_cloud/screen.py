"""What a person sees, as in the demo."""

import os
import sys
import time

BOLD, DIM, RED, GREEN = "1", "2", "31", "32"


class Screen:
    """Standard output, with colours only where it is a terminal."""

    def __init__(self):
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._start = time.monotonic()
        self._phases = []
        self._findings = []

    def title(self, title, subtitle):
        self._line(self._paint(BOLD, title))
        self._line(self._paint(DIM, subtitle))

    def phase(self, short, title):
        self._end_phase()
        self._phases.append([short, time.monotonic(), 0.0])
        self._line("")
        self._line(self._paint(BOLD, f"{len(self._phases)}. {title}"))

    def fact(self, label, text):
        self._line(f"   {label:<22} {text}")

    def proven(self, finding):
        self._findings.append(finding)

    def note(self, text):
        self._line(self._paint(DIM, f"   {text}"))

    def summary(self, not_shown):
        self._end_phase()
        self._line("")
        self._line(self._paint(BOLD, "Proven"))
        for finding in self._findings:
            self._line(f"   {self._paint(GREEN, '✓')} {finding}")
        self._line(self._paint(BOLD, "Not shown here"))
        for item in not_shown:
            self._line(f"   - {item}")
        parts = ", ".join(f"{short} {seconds(took)}" for short, _, took in self._phases)
        total = seconds(time.monotonic() - self._start)
        self._line("")
        self._line(f"{self._paint(BOLD, f'{total} in total:')} {parts}")

    def failure(self, error):
        print(f"{self._paint(RED, 'cloud failed:')} {error}", file=sys.stderr)

    def _end_phase(self):
        if self._phases:
            self._phases[-1][2] = time.monotonic() - self._phases[-1][1]

    def _paint(self, style, text):
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours else text

    @staticmethod
    def _line(text):
        print(text, flush=True)


def seconds(time_taken):
    """A length of time as people write it."""
    return f"{time_taken * 1000:.0f} ms" if time_taken < 1 else f"{time_taken:.1f} s"
