"""`ensemble submit`: trains a configuration on a Ray cluster, follows the log, leaves with the job's own exit code, fetches the run.

    ensemble submit CONFIG --address http://HEAD:8265 [key=value ...]      # also: python -m ensemble.launch.submit
    ensemble submit CONFIG --address http://HEAD:8265 --fetch results      # and bring the run folder here: results/NAME
    ensemble submit CONFIG --address http://HEAD:8265 --detach             # prints the job's id
    ensemble submit --follow JOB | --stop JOB | --job JOB --fetch results  # for a job that was submitted

Only the dashboard is talked to. Ctrl-C stops a job that this command submitted, which keeps what it has done; a closed
terminal (SIGHUP), and Ctrl-C while following another's, only leaves it. Nothing secret goes into a submission: a W&B key
belongs into the cluster's environment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemble.errors import EXIT_INTERRUPTED, ComputeError, ConfigError
from ensemble.outside import json_lines
from ensemble.outside.names import visible

if TYPE_CHECKING:
    from ensemble.launch.dashboard import Cluster
    from ensemble.launch.upload import Upload

_SHOWN_FILES = 12
_WORTH_FETCHING = (0, 4, 5)  # exit codes of jobs that leave a run


@dataclass(frozen=True)
class Wish:
    """What the command line asks for. on_interrupt: "stop" or "detach"."""

    config: str | None
    overrides: tuple[str, ...]
    address: str | None
    insecure: bool
    install: bool
    more: tuple[str, ...]
    detach: bool
    follow: str | None
    job: str | None
    stop: str | None
    fetch: str | None
    on_interrupt: str | None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--address",
    help="The cluster's dashboard, such as http://127.0.0.1:8265; without it $RAY_API_SERVER_ADDRESS, else $RAY_ADDRESS.",
)
@click.option("--insecure", is_flag=True, help="Allow an unencrypted, token-less line to another machine.")
@click.option(
    "--install",
    is_flag=True,
    help="Send this machine's version of the program too, and install its requirements there (slow the first time).",
)
@click.option(
    "--with",
    "more",
    multiple=True,
    metavar="PATH",
    help="Upload this file or folder as well; may stand several times.",
)
@click.option(
    "--detach", "--no-wait", is_flag=True, help="Do not follow the log: print the job's id, and what to type next."
)
@click.option("--follow", metavar="JOB", help="Follow a job that was submitted before.")
@click.option("--stop", metavar="JOB", help="Stop a job orderly; the same submission goes on where it was.")
@click.option(
    "--fetch",
    metavar="FOLDER",
    help="Bring the run, or all of repeats=N, to FOLDER/NAME on this machine when the job has ended.",
)
@click.option("--job", metavar="JOB", help="With --fetch: a job that has ended.")
@click.option(
    "--on-interrupt",
    type=click.Choice(["stop", "detach"]),
    help="What Ctrl-C does to the job: stop (of one just submitted), or only leave it (with --follow).",
)
@click.pass_context
def submit(context: click.Context, /, **given: Any) -> None:
    """Train the ensemble of a CONFIG file on a Ray cluster, follow its log, and leave with its exit code.

    Uploaded are the configuration and the files that it names, nothing else of the folder; absolute paths are those of
    the cluster. Without output_dir runs go to ~/ensemble_runs on the head. The same submission again goes on where a run was.
    """
    context.exit(run(Wish(**given)))


def run(wish: Wish) -> int:
    """Do what is asked; returns the exit code. Raises EnsembleError with what is wrong."""
    from ensemble.launch import dashboard

    _check(wish)
    address, variable = dashboard.dashboard_address(wish.address)
    if variable:
        _say(f"address {address} (${variable})")
    if wish.config is None:
        cluster = dashboard.connect(address, wish.insecure)
        if wish.stop:
            return _stop(cluster, wish.stop)
        if wish.job:
            return _fetch(cluster, wish.job, wish.fetch)
        assert wish.follow, "one of the three"
        cluster.info(wish.follow)  # that there is one
        return _follow(cluster, wish.follow, wish, wish.on_interrupt or "detach")
    from ensemble.launch.upload import collect
    from ensemble.outside.paths import given_path

    upload = collect(given_path(wish.config, "config"), wish.overrides, wish.more, wish.install)
    cluster = dashboard.connect(address, wish.insecure)
    job = _submit(cluster, upload, wish)
    if wish.detach:
        _say(next_steps(job, address))
        click.echo(job)
        return 0
    return _follow(cluster, job, wish, wish.on_interrupt or "stop")


def _check(wish: Wish) -> None:
    """Raises ConfigError for words that do not go together."""
    earlier = {"--follow": wish.follow, "--stop": wish.stop, "--job": wish.job}
    named = [name for name, value in earlier.items() if value is not None]
    if wish.config is not None and named:
        raise ConfigError(f"{named[0]} is for a job that was submitted before; leave out {wish.config}")
    if wish.config is None and not named:
        raise ConfigError("expected a CONFIG to submit, or one of --follow JOB, --stop JOB, --fetch FOLDER --job JOB")
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)}: expected one of them")
    if wish.config is not None and "=" in wish.config and not Path(wish.config).is_file():
        raise ConfigError(f"{wish.config}: expected a CONFIG first, then key=value")
    if wish.job is not None and wish.fetch is None:
        raise ConfigError(f"--job {wish.job}: goes with --fetch FOLDER; to see its log: --follow {wish.job}")
    idle = {
        "--fetch": wish.fetch is not None and bool(wish.detach or wish.stop),
        "--on-interrupt": wish.on_interrupt is not None and bool(wish.detach or wish.stop or wish.job),
        "--install": wish.install and bool(named),
        "--with": bool(wish.more and named),
        "--detach": wish.detach and bool(named),
    }
    for name, value in idle.items():
        if value:
            beside = "--detach" if wish.detach and not named else named[0]
            raise ConfigError(f"{name} has no effect with {beside}; leave it out")


def submission(
    upload: Upload, folder: Path, install: bool, ray_version: str, overrides: Sequence[str]
) -> dict[str, Any]:
    """The arguments of Ray's submit_job: command, files and environment, with nothing secret in them."""
    import json
    import shlex

    from ensemble.launch import versions
    from ensemble.launch.fetching import NAME_KEY, PLACE_KEY, RUNS_KEY
    from ensemble.launch.following import STOP_WAIT_S

    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), versions.VARIABLE: json.dumps(versions.here())}
    if wanted := os.environ.get(json_lines.VARIABLE):
        variables[json_lines.VARIABLE] = wanted  # the job's lines as ours
    environment: dict[str, Any] = {"working_dir": str(folder), "env_vars": variables}
    if install:
        environment["pip"] = {"packages": requirements(ray_version)}
    return {
        "entrypoint": shlex.join(["python", "-m", "ensemble.launch.ray_job", upload.config, *overrides]),
        "runtime_env": environment,
        "metadata": {
            NAME_KEY: upload.name,
            PLACE_KEY: upload.output_dir,
            RUNS_KEY: json.dumps(upload.runs),
        },
    }


def requirements(ray_version: str) -> list[str]:
    """What the program needs, in this machine's versions; of Ray the cluster's own, which must stay."""
    from importlib import metadata

    from packaging.requirements import Requirement

    found = []
    for line in metadata.requires("ensemble-trainer") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        version = ray_version if wanted.name == "ray" else metadata.version(wanted.name).partition("+")[0]
        extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
        found.append(f"{wanted.name}{extras}=={version}")
    return found


def _submit(cluster: Cluster, upload: Upload, wish: Wish) -> str:
    from ensemble.launch import versions
    from ensemble.launch.upload import DEFAULT_OUTPUT, staged

    for line in described(upload):
        _say(line)
    here = versions.here()["ray"]
    if cluster.ray_version and cluster.ray_version != here:
        _say(f"note: the cluster has Ray {cluster.ray_version}, this machine {here}; the job runs with the cluster's")
    with staged(upload) as folder:
        job = cluster.take(**submission(upload, folder, wish.install, cluster.ray_version or here, wish.overrides))
    _say(f"job {job}: submitted to {cluster.address}")
    if upload.output_dir == DEFAULT_OUTPUT:
        _say(
            f"runs go to {DEFAULT_OUTPUT} on the cluster's head, as output_dir is not given; where the head's disk does not stay (containers, Kubernetes), fetch the run before the cluster ends (--fetch FOLDER), or give output_dir=/a/shared/folder or an address"
        )
    return job


def described(upload: Upload) -> Iterator[str]:
    """What is uploaded, for people: files with their sizes, the program as one line."""
    sizes = upload.sizes()
    own = {
        name: size
        for name, size in sizes.items()
        if not (upload.program and name.startswith("ensemble/") and name != upload.config)
    }
    yield f"uploading {len(sizes)} files, {_amount(sum(sizes.values()))}:"
    largest = sorted(own, key=lambda name: (-own[name], name))
    for name in largest[:_SHOWN_FILES]:
        yield f"  {_amount(own[name]):>9}  {name}"
    if len(largest) > _SHOWN_FILES:
        yield f"             and {len(largest) - _SHOWN_FILES} smaller ones"
    if upload.program:
        yield f"  {_amount(sum(sizes.values()) - sum(own.values())):>9}  ensemble/ (the program, {len(sizes) - len(own)} files)"
    for line in upload.there:
        yield f"  on the cluster: {line}"


def _amount(count: int) -> str:
    return (
        f"{count:,} B" if count < 1024 else f"{count / 1024:,.1f} KiB" if count < 2**20 else f"{count / 2**20:,.1f} MiB"
    )


def next_steps(job: str, address: str) -> str:
    """Commands for a job that goes on without us."""
    from ensemble.launch.following import command

    to = ("--address", address)
    return "\n".join(
        f"{what:<7} {command(*words)}"
        for what, words in (
            ("follow:", ("--follow", job, *to)),
            ("stop:", ("--stop", job, *to)),
            ("fetch:", ("--fetch", "results", "--job", job, *to)),
        )
    )


def _follow(cluster: Cluster, job: str, wish: Wish, on_interrupt: str) -> int:
    from ensemble.launch.following import follow, stop

    _say("Ctrl-C stops the job orderly" if on_interrupt == "stop" else f"Ctrl-C leaves the job {job} running")
    with _hang_up_noted() as hung_up:
        try:
            code = follow(cluster, job)
        except KeyboardInterrupt:
            if on_interrupt == "detach" or hung_up:
                _say(f"the job {job} goes on\n{next_steps(job, cluster.address)}")
                return EXIT_INTERRUPTED
            _say(f"stopping {job} ...")
            if not stop(cluster, job):
                _say(
                    f"the job {job} has not said that it stopped; look again: ensemble submit --stop {job} --address {cluster.address}"
                )
            raise
    if wish.fetch is None:
        if code in _WORTH_FETCHING:
            _say(f"to bring the run here: ensemble submit --fetch results --job {job} --address {cluster.address}")
        return code
    if code not in _WORTH_FETCHING:
        _say(f"nothing was fetched, as the job left with {code}")
        return code
    return _fetch(cluster, job, wish.fetch) or code


@contextmanager
def _hang_up_noted() -> Iterator[list[int]]:
    """Inside, the list that is given holds SIGHUP once the terminal was closed."""
    noted: list[int] = []
    before = signal.getsignal(signal.SIGHUP)
    if not callable(before):
        yield noted
        return

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        before(number, frame)

    signal.signal(signal.SIGHUP, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGHUP, before)


def _stop(cluster: Cluster, job: str) -> int:
    from ensemble.launch.following import STOP_WAIT_S, stop

    status = cluster.info(job).status
    if status.is_terminal():
        _say(f"job {job}: has ended already: {status}")
        return 0
    if not stop(cluster, job):
        raise ComputeError(
            f"the job {job} did not end within {STOP_WAIT_S + 10:g} s, or the head does not answer; try again"
        )
    _say(f"job {job}: {cluster.info(job).status}; the same submission goes on where it was")
    return 0


def _fetch(cluster: Cluster, job: str, folder: str | None) -> int:
    from ensemble.launch.fetching import fetch
    from ensemble.outside.paths import given_path

    assert folder is not None, "checked before"
    paths = fetch(cluster, job, given_path(folder, "--fetch"), _say)
    _say(f"fetched: every file as its manifest says; for example: ensemble evaluate {paths[0]}")
    path = paths[0]
    if len(paths) > 1:
        from ensemble.report.repeated import write_repeats
        from ensemble.results.repeated import judge_repeats

        path = paths[0].parent
        write_repeats(judge_repeats(paths, path.name), path)
    click.echo(visible(str(path)))
    return 0


def _say(line: str) -> None:
    json_lines.tell(visible(line))


def main() -> int:
    """Read the command line and submit; returns the exit code."""
    code = submit.main(sys.argv[1:], prog_name="python -m ensemble.launch.submit", standalone_mode=False)
    return int(code or 0)


def start() -> None:
    """Run this door and leave with its exit code."""
    from ensemble.launch.training import guarded

    try:
        guarded(main, "the same command")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    start()
