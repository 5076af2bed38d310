"""What the simulator and the daemon are told: nothing that a user could not tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from batchwatch.demo.receiver import Receiver
    from batchwatch.demo.scene import Scene

API_KEY: Final = "llx-simulator"
PATIENT: Final = {
    "RETRY_SCHEDULE": ",".join(["0s", "200ms", "400ms", "800ms", *["1s"] * 40]),
    "TIMEOUT": "2s",  # a receiver that hangs must not delay the end
}


def simulate(scene: Scene, *, speed: float) -> list[str]:
    """The arguments of ``batchwatch`` for the simulator."""
    return [
        *("simulate", "--host", "127.0.0.1", "--port", "0", "--api-key", API_KEY),
        *("--scenario", scene.scenario, "--seed", str(scene.seed), "--speed", str(speed)),
    ]


def settings(
    upstream_url: str, receiver: Receiver, *, folder: Path, requests_per_minute: int
) -> dict[str, str]:
    """The environment of ``batchwatch run``, with times that are short enough to watch."""
    endpoints = {
        "RECEIVER": {"URL": receiver.webhook_url, "SECRET": receiver.secret, **PATIENT},
        "SLACK": {"TYPE": "slack", "URL": receiver.slack_url, "RATE_LIMIT": "1000/s", **PATIENT},
    }
    return {
        "LLAMA_CLOUD_BASE_URL": upstream_url,
        "LLAMA_CLOUD_API_KEY": API_KEY,
        "BATCHWATCH_DATA_DIR": str(folder),
        "BATCHWATCH_LISTEN": "127.0.0.1:0",
        "BATCHWATCH_LOG_FORMAT": "json",
        "BATCHWATCH_SHUTDOWN_GRACE": "2s",
        "BATCHWATCH_POLL_INTERVAL": "300ms",
        "BATCHWATCH_WATCHES__DEMO__REQUESTS_PER_MINUTE": str(requests_per_minute),
        # A batch may be over before the first look: in the demo that is news as well.
        "BATCHWATCH_NOTIFY_BACKLOG": "true",
    } | {
        f"BATCHWATCH_ENDPOINTS__{name}__{setting}": value
        for name, endpoint in endpoints.items()
        for setting, value in endpoint.items()
    }
