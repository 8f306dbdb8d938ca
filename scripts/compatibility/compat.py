"""`scripts/compat`: what each onnxruntime, and each other runtime, makes of our files and of the facts that we build on.

It writes fcdeploy/tables/observations.py (facts), oldest.py (since when a form of a file is right) and other_runtimes.py
(which forms others do not take), and docs/runtimes.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import click

from fcdeploy.runtime.cpu import detect_target, read_cpu_name
from fcdeploy.tables.facts import FACTS
from fcdeploy.tables.observations import VERSIONS, find_observed
from fcdeploy.tables.other_runtimes import NEAREST, TITLES, UNTAKEN
from scripts.checkout import ROOT
from scripts.compatibility import tables
from scripts.compatibility.answers import Answer, Runtime, ask, time_pairs
from scripts.compatibility.files import list_made_for, make_files
from scripts.compatibility.run import PAIRS

TABLE = ROOT / "fcdeploy" / "tables" / "observations.py"
PAGE = ROOT / "docs" / "runtimes.md"
PLACE = ROOT / ".compat"
OUT = ROOT / "out" / "compat-answers"
LIST = (
    "1.16.3", "1.17.3", "1.18.1", "1.19.2", "1.20.1", "1.22.1", "1.24.4", "1.26.0", "1.28.0", "1.30.0", "1.31.1", "1.32.0",
)  # fmt: skip
OLD = ("1.7.0", "1.8.1", "1.10.0")  # of Python 3.8, where there is one: our files alone, no facts
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
RUNTIMES = {  # name -> title and packages
    "web": ("onnxruntime-web (WASM)", "onnxruntime-web@1.30.0"),
    "node": ("onnxruntime-node", "onnxruntime-node@1.30.0"),
    "openvino": ("OpenVINO", "openvino==2026.4.1"),
    "opencv4": ("OpenCV", "opencv-python-headless==4.14.0.94"),
    "opencv5": ("OpenCV", "opencv-python-headless==5.0.0.93"),
    "tract": ("tract", "tract==0.23.9"),
}
KINDS = ("x86-avx2", "x86-vnni")  # CPUs of which facts are kept
ROUNDS = 3  # files made with --for have forms of their own, by which the table grows
OLD_NUMPY = "numpy==1.26.4"  # for wheels built before NumPy 2
CHILD = """
import json, sys
from fcdeploy.runtime.probes.ask import ask_apart
json.dump(ask_apart(sys.argv[1:]), sys.stdout)
"""
TABLE_HEAD = '''"""What each onnxruntime answered to each fact of tables/facts.py, on CPUs with AVX2, without VNNI and with it.

Written by scripts/compat, not by hand.
"""
'''
TABLE_TAIL = '''

def find_observed(fact: str, version: str, cpu: str = "x86-avx2") -> str:
    """What that version answered on a CPU (a name of tables/targets.py); empty for a version that was not asked."""
    if version not in VERSIONS:
        return ""
    upto = VERSIONS[: VERSIONS.index(version) + 1]
    changes = WITH_VNNI.get(fact, CHANGES.get(fact, {})) if cpu == "x86-vnni" else CHANGES.get(fact, {})
    return next((changes[each] for each in reversed(upto) if each in changes), "")
'''
Table = Mapping[str, Mapping[str, str]]  # version -> fact -> answer
FACTS_HEAD = """{count} facts were asked of onnxruntime {versions}, on CPUs with AVX2: without VNNI, and with it.
{same} were answered alike by all versions. Of these the answers differ, each from the version on that is named:

| fact | answers | what follows from the last |
|---|---|---|
"""
VNNI_HEAD = """
With VNNI these are answered otherwise:

| fact | without VNNI | with VNNI |
|---|---|---|
"""
FILES_HEAD = """{made}; compared with onnxruntime {newest}, 8 samples one at a time, one thread. Kernels are alike where
the optimized graph has the same operators as often.

| onnxruntime | files that run | bit-equal | the others, at least | kernels alike | do not run, by form |
|---|---|---|---|---|---|
"""
RUNTIMES_HEAD = """{made}; right are files whose answers come within 40 dB of those of onnxruntime {newest}, or within 25 dB
and as near to the float model's (OpenVINO, for one, adds a residual before it rounds); the least of these follows. Time is
that of the default file, and of the file with every integer kernel (`--costs none`: all), over the float model's in the
same runtime, one thread, one sample: of each network the median of {pairs} pairs of runs in turn, and of these the median,
least and most. The CPU, {cpu}, did other work beside (load {load}).

"""


@click.command()
@click.argument("names", nargs=-1, metavar="[VERSION or RUNTIME]...")
@click.option("--runtimes", is_flag=True, help="Ask other runtimes than onnxruntime.")
@click.option(
    "--also", multiple=True, metavar="MODEL=CALIB.npz,EVAL.npz", help="With --runtimes: a network of yours, too."
)
@click.option("--facts", is_flag=True, help="Ask for facts alone; else our files are run, too.")
def compat(names: tuple[str, ...], runtimes: bool, also: tuple[str, ...], facts: bool) -> None:
    """Ask these versions or runtimes, or all of the list."""
    cpu = detect_target().name
    if cpu not in KINDS or (cpu == "x86-vnni" and not facts):
        raise click.ClickException("the tables are of CPUs with AVX2 and without VNNI, with it of --facts alone")
    made = f"scripts/compat{' --runtimes' if runtimes else ''}, {date.today()}"
    if runtimes:
        own = [part for each in also for part in ("--also", each)]
        for _ in range(ROUNDS):
            broken = ask_runtimes(names or tuple(RUNTIMES), made)
            command = [
                sys.executable,
                "-m",
                "scripts.compatibility.made_for",
                *names,
                *own,
            ]  # reads the table just written
            if subprocess.run(command, check=False).returncode == 0:
                break
        else:
            broken.append("a file made with --for")
    else:
        ask_facts(names or LIST)
        broken = [] if facts else ask_versions(made)
    for line in broken:
        click.echo(f"not explained: {line}", err=True)
    sys.exit(1 if broken else 0)


def ask_facts(versions: tuple[str, ...]) -> None:
    """The table of facts: of this kind of CPU anew, of the other as it stands."""
    found = {cpu: {version: _read_row(version, cpu) for version in VERSIONS} for cpu in KINDS}
    here = detect_target().name
    for version in versions:
        answers = found[here][version] = answers_of(version)
        for cpu in KINDS:
            found[cpu].setdefault(version, answers)
        click.echo(f"onnxruntime {version}: {len(answers)} answers", err=True)
    plain, vnni = (dict(sorted(found[cpu].items(), key=lambda row: release(row[0]))) for cpu in KINDS)
    TABLE.write_text(as_module(plain, vnni))
    write_part("versions", as_page(plain, vnni))


def _read_row(version: str, cpu: str) -> dict[str, str]:
    return {fact: find_observed(fact, version, cpu) for fact in FACTS}


def ask_versions(made: str) -> list[str]:
    """The table of our files in versions of onnxruntime."""
    files = make_files()
    forms = tables.forms_of(files)
    everything = [*(OLD if find_python() else ()), *LIST]
    asked = {version: run_version(version, files) for version in everything}
    reference = run_version("reference", files)
    table = {version: tables.judge(answers, reference) for version, answers in asked.items()}
    oldest, contradictions = tables.find_oldest(table, forms)
    tables.write_oldest(ROOT / "fcdeploy" / "tables" / "oldest.py", oldest, made)
    rows = tables.summarize_versions(table, lambda version, name: tables.count_kernels(OUT / version, name))
    write_part("files", FILES_HEAD.format(made=made, newest=LIST[-1]) + "".join(rows))
    return contradictions


def run_version(version: str, files: list[Path]) -> dict[str, Answer]:
    """Our files in a version; "reference" is the newest, of probes as they are written."""
    click.echo(f"onnxruntime {version}: {len(files)} files", err=True)
    python, environment, written = sys.executable, {}, version == "reference"
    if version in OLD:
        python = str(install_old(version))
    else:
        environment = {"PYTHONPATH": str(installed(LIST[-1] if written else version))}
    command = [python, "run.py", "onnxruntime"]
    return ask(Runtime(command, OUT / version, version, environment, written=written), files)


def ask_runtimes(names: tuple[str, ...], made: str) -> list[str]:
    """The table of other runtimes."""
    files = make_files()
    kept = {name: list_made_for(name) for name in names}
    everything = [*files, *dict.fromkeys(file for each in kept.values() for file in each)]
    forms, reference = tables.forms_of(everything), run_version("reference", everything)
    found = {name: (title, UNTAKEN[name]) for name, title in TITLES.items() if name in RUNTIMES}
    nearest = dict(NEAREST)
    rows, unexplained, loads = [], [], []
    for name in names:
        title, runtime = title_of(name), find_runtime(name)
        click.echo(title, err=True)
        verdicts = tables.judge(ask(runtime, [*files, *kept[name]]), reference)
        culprits, rest = tables.find_culprits(verdicts, forms)
        rounded = tables.find_rounded(verdicts, forms, rest)
        seen = {form for file in verdicts for form in forms[file]}  # of others holds what was found before
        UNTAKEN[name] = {form: why for form, why in UNTAKEN[name].items() if form not in seen} | culprits | rounded
        found[name], nearest[name] = (title, UNTAKEN[name]), tables.find_nearest(verdicts)
        unexplained += [f"{title}: {each}" for each in rest if not rounded.keys() & forms[each].keys()]
        rows.append(tables.summarize_runtime(title, verdicts, time_networks(runtime, files, verdicts)))
        loads.append(os.getloadavg()[1])
    tables.write_runtimes(ROOT / "fcdeploy" / "tables" / "other_runtimes.py", found, nearest, made)
    if len(names) == len(RUNTIMES):
        load = f"{min(loads):.1f} to {max(loads):.1f}"
        head = RUNTIMES_HEAD.format(made=made, newest=LIST[-1], pairs=PAIRS, cpu=read_cpu_name(), load=load)
        write_part("runtimes", "".join([head, *tables.begin_runtimes(), *rows]))
    return unexplained


def title_of(runtime: str) -> str:
    """Its name and version."""
    title, package = RUNTIMES[runtime]
    return f"{title} {re.split('==|@', package)[1]}"


def time_networks(runtime: Runtime, files: list[Path], verdicts: Mapping[str, tables.Verdict]) -> dict[str, float]:
    """Files with integers that are right in a runtime -> their time over that of the float model in it."""
    right = [file for file in files if file.name in verdicts and tables.is_right(verdicts[file.name])]
    floats = {file.name.split(".")[0]: file for file in right if not tables.form_of(file.name)}
    timed = [file for file in right if tables.form_of(file.name) in tables.TIMED and file.name.split(".")[0] in floats]
    return time_pairs(runtime, [(file, floats[file.name.split(".")[0]]) for file in timed])


def find_runtime(name: str) -> Runtime:
    """Another runtime, installed where it is missing."""
    folder, packages = PLACE / f"rt-{name}", RUNTIMES[name][1]
    if name in ("web", "node"):
        if not (folder / "node_modules").exists():
            folder.mkdir(parents=True, exist_ok=True)
            install = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(folder), packages]
            subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        script = str(ROOT / "scripts" / "compatibility" / "run.mjs")
        return Runtime(["node", script, f"onnxruntime-{name}"], OUT / name, packages, cwd=folder)
    if not folder.exists():
        subprocess.run([sys.executable, *PIP, "--no-deps", "--target", str(folder), packages], check=True)
    command = [sys.executable, "run.py", name.rstrip("45")]
    return Runtime(command, OUT / name, packages, {"PYTHONPATH": str(folder)})


def find_python() -> Path | None:
    """A Python 3.8, for which the oldest wheels are."""
    found = [
        shutil.which("python3.8"),
        *map(str, sorted((Path.home() / ".pyenv" / "versions").glob("3.8*/bin/python"))),
    ]
    for each in found:
        if each and subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode == 0:
            return Path(each)
    click.echo(f"note: there is no Python 3.8, so {', '.join(OLD)} are not asked", err=True)
    return None


def install_old(version: str) -> Path:
    """An interpreter with that version, made where it is missing."""
    folder = PLACE / f"python3.8-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([str(find_python()), "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), *PIP, f"onnxruntime=={version}"], check=True)
    return python


def write_part(name: str, text: str) -> None:
    """One part of the page, between its marks."""
    page = PAGE.read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, rest = page.split(begin)
    PAGE.write_text(before + begin + text + end + rest.split(end)[1])


def release(version: str) -> tuple[int, ...]:
    """To be ordered by."""
    return tuple(map(int, version.split(".")))


def answers_of(version: str) -> dict[str, str]:
    """Ask one version, put in front of the modules of this environment; what it answered to the same probes is kept."""
    probes = [
        *sorted((ROOT / "fcdeploy" / "runtime" / "probes").glob("*.py")),
        ROOT / "fcdeploy" / "tables" / "facts.py",
    ]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in probes)).hexdigest()[:16]
    kept = OUT / f"facts-{version}-{digest}.json"
    if not kept.exists():
        environment = {**os.environ, "PYTHONPATH": str(installed(version))}
        command = [sys.executable, "-c", CHILD, *FACTS]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        OUT.mkdir(parents=True, exist_ok=True)
        kept.write_text(done.stdout)
    found: dict[str, str] = json.loads(kept.read_text())
    return found


def installed(version: str) -> Path:
    """The folder of that version, made where it is missing."""
    folder = PLACE / f"onnxruntime-{version}"
    if not (folder / "onnxruntime").exists():
        packages = [f"onnxruntime=={version}", *([OLD_NUMPY] if release(version) < (1, 19) else [])]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--target", str(folder), *packages], check=True)
    return folder


def changes(table: Table, fact: str) -> dict[str, str]:
    """Its answers, each by the first version that gives it."""
    found: dict[str, str] = {}
    for version, row in table.items():
        if not found or row[fact] != [*found.values()][-1]:
            found[version] = row[fact]
    return found


def as_module(plain: Table, vnni: Table) -> str:
    """The tables without VNNI and with it as Python."""
    rows = "".join(f"    {json.dumps(fact)}: {json.dumps(changes(plain, fact))},\n" for fact in FACTS)
    others = "".join(
        f"    {json.dumps(fact)}: {json.dumps(each)},\n" for fact, each in find_others(plain, vnni).items()
    )
    listed = ", ".join(map(json.dumps, plain))
    return (
        f'{TABLE_HEAD}\nVERSIONS = (\n    {listed},\n)  # fmt: skip\n"""The versions that were asked, oldest first."""\n\n'
        f"CHANGES: dict[str, dict[str, str]] = {{\n{rows}}}  # fmt: skip\n"
        f'"""Fact -> its answers without VNNI, each by the first of the versions that gives it."""\n\n'
        f"WITH_VNNI: dict[str, dict[str, str]] = {{\n{others}}}  # fmt: skip\n"
        f'"""The same with VNNI, of facts that are answered otherwise there."""\n{TABLE_TAIL}'
    )


def find_others(plain: Table, vnni: Table) -> dict[str, dict[str, str]]:
    """Facts that a CPU with VNNI answers otherwise -> its answers, each by the first version that gives it."""
    return {fact: found for fact in FACTS if (found := changes(vnni, fact)) != changes(plain, fact)}


def as_page(plain: Table, vnni: Table) -> str:
    """The page on runtimes."""
    differing = {fact: found for fact in FACTS if len(found := changes(plain, fact)) > 1}
    others = find_others(plain, vnni)
    head = FACTS_HEAD.format(count=len(FACTS), versions=", ".join(plain), same=len(FACTS) - len(differing))
    rows = [f"| {fact} | {list_changes(each)} | {FACTS[fact].why} |\n" for fact, each in differing.items()]
    with_vnni = [
        f"| {fact} | {list_changes(changes(plain, fact))} | {list_changes(each)} |\n" for fact, each in others.items()
    ]
    return "".join([head, *rows, VNNI_HEAD, *with_vnni])


def list_changes(answers: Mapping[str, str]) -> str:
    """Answers, each behind the version from which on it is given."""
    return "; ".join(f"{version} {answer}" for version, answer in answers.items())


if __name__ == "__main__":
    compat(prog_name="scripts/compat")
