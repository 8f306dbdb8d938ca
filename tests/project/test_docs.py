"""The docs are true: their commands run, their options and keys exist, their links lead somewhere.

The commands of a page run one after the other in one folder that holds models/ and calib_data/, as a reader would run
them.  What a page shows of an error is compared word by word; other output holds times, and is not.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import click
import pytest
from compiled_once import compiled_once

from fcdeploy import cli
from fcdeploy.errors import FcdeployError
from fcdeploy.native.toolchain import compile_c, find_compiler

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
GUIDE = ROOT / "docs" / "guide.md"
COMMAND = re.compile(r"^(?:\$ )?((?:fcdeploy|scripts/\w+)(?: .*)?)$")
# left out where there is none
NEEDS_COMPILER = re.compile(r"fcdeploy compile (?!.*--dry-run)|.* --library |.* --engine native")
EXPORT = re.compile(r"(fcdeploy export .* -o )(\S+)$")
OUTPUT = re.compile(r" -o (\S+)")
LONG = ("fcdeploy demo", "fcdeploy serve", "fcdeploy deploy", "scripts/")  # parsed, not run here
YOURS = re.compile(r"\b(?!DATA\b)[A-Z][A-Z_]{2,}(_\d)?\b")  # a file of the reader's: parsed, too
README_S = "resnet.int8.onnx"
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|mnt|usr|opt)\b")
TUTORIAL = ROOT / "docs" / "tutorial.md"
RECIPES = ROOT / "docs" / "recipes.md"
METRIC = re.compile(r"```python\n(def margin.*?)```", re.DOTALL)


def fenced(page: Path) -> Iterator[str]:
    """The lines of a page that stand between fences."""
    inside = False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = not inside
        elif inside:
            yield line


def shown(page: Path) -> list[tuple[str, list[str]]]:
    """Each command of a page with the error lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in fenced(page):
        if match := COMMAND.match(line):
            found.append((match[1].split("#")[0].strip(), []))
        elif line.startswith(("error: ", "hint: ")):
            found[-1][1].append(line)
    return found


def first_example(page: Path, language: str) -> str:
    example = re.search(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    assert example
    return example[1]


def first_python(page: Path) -> CodeType:
    return compile(first_example(page, "python"), page.name, "exec")


def commands() -> dict[str, click.Command]:
    context = click.Context(cli.fcdeploy)
    return {name: cli.fcdeploy.get_command(context, name) for name in cli.COMMANDS}  # type: ignore[misc]


def quicker(words: list[str]) -> list[str]:
    """The same command with less measuring; of an option given twice, the last counts."""
    if words[0] == "bench":
        return [*words, "--seconds", "0.1", "--interval", "1000"]
    if words[0] == "validate" and "--layers" in words:  # the same command without it runs on all samples
        return [*words, "--samples", "24", "--max-drop", "100"]
    if words[0] == "quantize":
        given = set(words)
        if not {"--effort", "--plan", "--max-drop"} & given and README_S not in given:
            words = [*words, "--effort", "fast"]  # README's own runs as it stands: its answer is what users see first
        if not {"--floor", "--plan", "--max-drop"} & given and README_S not in given:
            words = [*words, "--floor", "none"]
        return words if {"--costs", "--plan"} & given else [*words, "--costs", "none"]
    return words


def only_parsed(command: str) -> bool:
    return command.startswith(LONG) or bool(YOURS.search(command))


def command_of(words: list[str]) -> click.Command:
    """The command, or the one inside a group."""
    command = commands()[words[0]]
    return command.commands[words[1]] if isinstance(command, click.Group) else command


def has_compiler() -> bool:
    try:
        find_compiler()
    except FcdeployError:
        return False
    return True


def run(command: str, done: set[str]) -> int:
    """The exit code of a command; one that succeeded in this folder before is not run again, nor to write over its file."""
    if (plain := command.removesuffix(" --force")) in done:
        return 0
    if (named := EXPORT.match(command)) and (same := [known for known in done if known.startswith(named[1])]):
        shutil.copy(OUTPUT.findall(same[0])[0], named[2])  # the same network under another name
        return 0
    code = cli.main(quicker(shlex.split(command)[1:]))
    if code == 0:
        done.add(plain)
    return code


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """The folder to be in, like a checkout, and the commands that were run there."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("models", "calib_data"):
        (folder / name).symlink_to(ROOT / name)
    found = METRIC.search(GUIDE.read_text())
    assert found
    (folder / "metrics.py").write_text(found[1])
    with pytest.MonkeyPatch.context() as patch, compiled_once():
        patch.chdir(folder)
        exec(first_python(TUTORIAL), {})  # writes the photos
        yield set()


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=lambda page: page.name)
def test_every_command_runs(page: Path, done: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    for command, errors in shown(page):
        if only_parsed(command) or (NEEDS_COMPILER.match(command) and not has_compiler()):
            continue
        line, _, redirect = command.partition(" > ")
        code = run(line, done)
        out, err = capsys.readouterr()
        # a limit on speed may be missed on this machine, and that is no mistake of the page
        assert code == (2 if errors else 0) or (code == 1 and "--max-ratio" in line), f"{command}\n{err}"
        assert not errors or err.splitlines() == errors, command
        if redirect and out:
            Path(redirect).write_text(out)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_long_commands_exist_with_their_options(page: Path) -> None:
    for command, _ in shown(page):
        program, *words = shlex.split(command)
        if program != "fcdeploy":
            assert os.access(ROOT / program, os.X_OK), command
        elif only_parsed(command):
            grouped = isinstance(commands()[words[0]], click.Group)
            command_of(words).make_context(words[0], words[2:] if grouped else words[1:])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_guide_has_every_option_of(name: str) -> None:
    text = GUIDE.read_text()
    assert f"\n## fcdeploy {name}\n" in text
    section = text.split(f"\n## fcdeploy {name}\n")[1].split("\n## ")[0]
    command = commands()[name]
    inner = command.commands.values() if isinstance(command, click.Group) else [command]
    options = [param for one in inner for param in one.params if isinstance(param, click.Option)]
    words = {word for option in options for word in (*option.opts, *option.secondary_opts)}
    missing = {word for word in words if not re.search(rf"`{re.escape(word)}[ `\[]", section)}
    assert not missing
    table = set(
        re.findall(r"(?:^\| |, )`(--[\w-]+)", "\n".join(re.findall(r"^\| `-.*?\|", section, re.MULTILINE)), re.M)
    )
    assert table <= words | {"--keep-samples"}, "the guide has an option that the command has not"


def test_the_guide_s_json_keys_are_printed(done: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The keys of the table, from a run of each command on the dense network."""
    made = "export models/dense.py:dense --state models/dense.safetensors -o d.onnx"
    runs = {
        "export": made,
        "inspect": "inspect d.onnx --kernels",
        "doctor": "doctor",
        "calibrate": "calibrate d.onnx --data calib_data/digits64.calib.npz",
        "quantize": "quantize d.onnx --int8 --calibration d.calib -o d8.onnx",
        "validate": "validate d8.onnx --against d.onnx --data calib_data/digits64.eval.npz --samples 64",
        "bench": "bench d8.onnx --against d.onnx",
        "bundle": "bundle d8.onnx -o d.fcd",
        "verify": "verify d.fcd",
    }
    table = GUIDE.read_text().split("| command | key | value | with |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| .* \| (.*?) ?\|$", table, re.MULTILINE)
    assert {command for command, _, _ in rows} == set(runs)
    for name, line in runs.items():
        assert run(f"fcdeploy {line} --json", done) == 0
        printed = json.loads(capsys.readouterr().out)
        keys = [key for command, key, only_with in rows if command == name and not only_with]
        assert next(iter(printed)) == "schema"
        assert list(printed)[-1] == "warnings"
        assert not set(keys) - set(printed), name


def test_the_architecture_names_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "docs" / "architecture.md").read_text()
    for requirement in project["dependencies"]:
        assert f"| `{re.split('[>=<]', requirement)[0]}` |" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_machine_paths(page: Path) -> None:
    assert not MACHINE_PATH.search(page.read_text())


def test_the_readme_s_example_runs(done: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fcdeploy export models/resnet.py:resnet --state models/resnet.safetensors -o resnet.onnx", done) == 0
    capsys.readouterr()
    names: dict[str, Any] = {}
    exec(first_python(ROOT / "README.md"), names)
    size, drop, low, high = map(float, capsys.readouterr().out.split())
    assert size == Path("made.onnx").stat().st_size
    assert low <= drop <= high
    assert names["proof"].passed


def test_the_calibration_file_s_example_runs(done: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    made = "fcdeploy export models/dense.py:dense --state models/dense.safetensors -o dense.onnx"
    assert run(made, done) == 0
    assert run("fcdeploy calibrate dense.onnx --data calib_data/digits64.calib.npz --csv dense.csv", done) == 0
    capsys.readouterr()
    exec(first_python(ROOT / "docs" / "calibration-file.md"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pixels 0.0 1.0 0.0"  # most pixels of a digit are paper


def test_the_bundle_s_example_runs(done: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    made = "fcdeploy export models/dense.py:dense --state models/dense.safetensors -o dense.onnx"
    assert run(made, done) == 0
    assert run("fcdeploy bundle dense.onnx -o dense.fcd --force", done) == 0
    capsys.readouterr()
    exec(first_python(ROOT / "docs" / "bundle.md"), {})
    assert capsys.readouterr().out == "output True\n"


def test_the_microcontroller_s_program_compiles(done: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    if not has_compiler():
        pytest.skip("no C compiler")
    needed = [command for command, _ in shown(RECIPES) if " dense" in command and not only_parsed(command)]
    emit = next(index for index, command in enumerate(needed) if "--emit c" in command)
    for command in needed[: emit + 1]:
        assert run(command, done) == 0, capsys.readouterr().err
    Path("main.c").write_text(first_example(RECIPES, "c"))
    compile_c(
        find_compiler(), ["-std=c11", "-Wall", "-Werror", "-I", "dense-c", "-c", "main.c", "-o", "main.o"], Path.cwd()
    )


def test_the_architecture_names_modules_and_functions_that_exist() -> None:
    """Whatever stands in backquotes with a path or a file's name is there; functions of the flow are defined there."""
    text = (ROOT / "docs" / "architecture.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:fcdeploy|tests|docs)/[\w/.]*\w/?)`", text):
        assert (ROOT / path).exists() or "NAME" in path, path
    flow = re.findall(r"^\| [\w ]+ \| (`.*?`) \| (`.*?) \|.*\|.*\|$", text.split("## Layers")[0], re.MULTILINE)
    assert len(flow) > 15
    for functions, modules in flow:
        places = [ROOT / "fcdeploy" / place for place in re.findall(r"`([\w/]+(?:\.py)?/?)`", modules)]
        sources = [f for place in places for f in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
        whole = "\n".join(file.read_text() for file in sources)
        for name in re.findall(r"`(\w+)`", functions):
            assert re.search(rf"^(def|class) {name}\b|^{name}\b", whole, re.MULTILINE), (name, modules)


def test_the_tables_that_contributors_are_sent_to_exist() -> None:
    how = (ROOT / "CONTRIBUTING.md").read_text().split("## How to add")[1].split("\n## ")[0]
    tables = set(re.findall(r"`([A-Z_]+)`", how))
    code = [path.read_text() for folder in ("fcdeploy", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert {"CHECKS", "PASSES", "COMPUTE"} < tables
    assert not {name for name in tables if not any(re.search(rf"^{name}\b.*=", text, re.M) for text in code)}


def test_every_layer_of_the_architecture_is_in_its_table() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().split("## Layers")[1].split("## Errors")[0]
    words = set(re.findall(r"`([\w.]+?)/?`", text))
    inside = {path.name for path in (ROOT / "fcdeploy").iterdir() if path.name[:2] != "__"}
    assert inside <= words, inside - words
