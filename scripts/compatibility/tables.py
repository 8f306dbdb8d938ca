"""From what runtimes answered to tables: which form is what a runtime refuses or computes wrongly, and since when it is right."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from fcdeploy.graph.form_details import SEVERAL_ROWS
from fcdeploy.graph.forms import list_forms
from fcdeploy.graph.model import read_model
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.tables.other_runtimes import ROUNDED
from scripts.compatibility.answers import OTHER_SHAPE, Answer, Comparison, compare
from scripts.compatibility.files import FORMS, OTHER_FORMS

Forms = Mapping[str, Mapping[str, Sequence[str]]]
Verdict = Comparison | str
ENOUGH = 40.0  # decibels from which on answers are the same: what is rounded is rounded alike
NEAR = 25.0  # from which on they are rounded otherwise: right where they are as near to the float model's
APART = 60.0  # nearer than this is no file with a form that is rounded otherwise
LOSS = -0.5  # decibels
LONGEST = 56
TIMED = ("default", "all")  # forms that are timed beside the float model


def forms_of(files: Sequence[Path]) -> dict[str, dict[str, list[str]]]:
    """The forms of every file that can be read."""
    found = {}
    for file in files:
        model = read_model(file)
        infer_shapes(model)
        found[file.name] = list_forms(model)
    return found


def judge(answers: Mapping[str, Answer], reference: Mapping[str, Answer]) -> dict[str, Verdict]:
    """By name of file, of those that the reference runs."""
    return {
        name: compare(answer, reference[name], reference.get(f"{name.split('.')[0]}.onnx"))
        for name, answer in answers.items()
        if name in reference and not reference[name].refused
    }


def is_right(verdict: Verdict) -> bool:
    """Whether answers are the same but for single roundings, or rounded otherwise and as good."""
    if not isinstance(verdict, Comparison):
        return False
    return verdict.decibels >= ENOUGH or (verdict.decibels >= NEAR and verdict.gain >= LOSS)


def find_taken(verdicts: Mapping[str, Verdict], forms: Forms) -> set[str]:
    """The forms of all files that are right."""
    return {form for name, verdict in verdicts.items() if is_right(verdict) for form in list_shown(name, forms)}


def list_shown(name: str, forms: Forms) -> set[str]:
    """The forms of a file that a run of it shows: networks are run one sample at a time."""
    return set(forms[name]) - (set() if name.startswith("probe-") else {SEVERAL_ROWS})


def find_culprits(verdicts: Mapping[str, Verdict], forms: Forms) -> tuple[dict[str, str], list[str]]:
    """The fewest forms that are in every file which is not right and in none that is; and the files that none explains.

    Of several the one whose operator or place the runtime names.
    """
    taken = find_taken(verdicts, forms)
    left = {name: list_shown(name, forms) - taken for name, verdict in verdicts.items() if not is_right(verdict)}
    unexplained = [name for name, candidates in left.items() if not candidates]
    left = {name: candidates for name, candidates in left.items() if candidates}
    found: dict[str, str] = {}
    while left:
        named, files = Counter[str](), Counter[str]()
        for name, candidates in left.items():
            said = str(verdicts[name])
            files.update(candidates)
            named.update(form for form in candidates if is_named(form, forms[name][form], said))
        culprit = max(
            files,
            key=lambda form: (named[form], not form.startswith("operator set"), files[form], "bytes" in form, form),
        )
        blamed = [name for name in left if culprit in left[name]]
        found[culprit] = say(verdicts[min(blamed, key=lambda name: (len(left[name]), name))])
        left = {name: candidates for name, candidates in left.items() if culprit not in candidates}
    return found, unexplained


def is_named(form: str, places: Sequence[str], said: str) -> bool:
    operator = re.split(r",| of | with | without ", form)[0].split()[-1]
    return bool(re.search(rf"\b{re.escape(operator)}\b", said)) or any(
        len(place) > 1 and place in said for place in places
    )


def say(verdict: Verdict) -> str:
    """Of a runtime's words those that say something."""
    if isinstance(verdict, Comparison):
        return f"computes otherwise: {verdict.decibels:.1f} dB"
    if verdict.startswith(OTHER_SHAPE):
        return f"computes otherwise: {verdict.removeprefix('its output has ')}"
    said = re.sub(r"Stack backtrace.*|parse error: error.*|Load model from \S+ failed:", " ", verdict)
    said = re.sub(r"/\S*/|\S+\.[ch]pp:\d+:?|OpenCV\(\S+\)|\(-\d+:[^)]*\)|Exception from", "", said)
    said = re.sub(r"^\w+: |\berror: |in function '\w+'|\W*> ", " ", said)
    return "refuses it: " + " ".join(said.split())[:LONGEST].rstrip(" :,(")


def find_oldest(table: Mapping[str, Mapping[str, Verdict]], forms: Forms) -> tuple[dict[str, str], list[str]]:
    """Form -> the first version that runs a file with it rightly; and where a file contradicts this. Oldest version first."""
    oldest: dict[str, str] = {}
    for version, verdicts in table.items():
        for form in find_taken(verdicts, forms):
            oldest.setdefault(form, version)
    order = [*table]
    contradictions = []
    for name, has in forms.items():
        runs = [version for version in order if name in table[version] and is_right(table[version][name])]
        if not runs:
            continue
        said = max((oldest[form] for form in has if form in oldest), key=order.index)
        later = [version for version in order[order.index(said) :] if name in table[version] and version not in runs]
        if runs[0] != said or later:
            contradictions.append(f"{name} is right in {', '.join(runs)}, expected from {said} on")
    return oldest, contradictions


def count_kernels(folder: Path, name: str) -> Counter[str] | None:
    """Operators of the graph that onnxruntime ran."""
    file = folder / f"{name}.optimized.onnx"
    try:
        return Counter(node.op_type for node in onnx.load(file).graph.node)
    except Exception:  # it was not written, or in types that onnx does not know yet
        return None


def summarize_versions(
    table: Mapping[str, Mapping[str, Verdict]], kernels: Callable[[str, str], Counter[str] | None]
) -> list[str]:
    """Rows of the table on versions: of the networks' files, how many load, are bit-equal, how near the others, and kernels."""
    newest, rows = [*table][-1], []
    for version, verdicts in table.items():
        whole = {name: verdict for name, verdict in verdicts.items() if is_quantized(name)}
        compared = {name: verdict for name, verdict in whole.items() if isinstance(verdict, Comparison)}
        other = [verdict for verdict in compared.values() if verdict.differing]
        same = sum(kernels(version, name) == kernels(newest, name) for name in compared)
        refused = Counter(name.split(".")[1] for name in whole if name not in compared)
        nearest = f"{min(each.decibels for each in other):.0f} dB" if other else "-"
        missing = ", ".join(f"{count} {form}" for form, count in sorted(refused.items())) or "none"
        rows.append(
            f"| {version} | {len(compared)} of {len(whole)} | {len(compared) - len(other)} | {nearest} | {same} | {missing} |\n"
        )
    return rows


def summarize_runtime(title: str, verdicts: Mapping[str, Verdict], ratios: Mapping[str, float]) -> str:
    """The row of the table on runtimes."""
    shares = []
    for form in (*FORMS, *OTHER_FORMS):
        rows = [verdict for name, verdict in verdicts.items() if name.endswith(f".{form}.onnx")]
        shares.append(f"{sum(map(is_right, rows))} of {len(rows)}")
    worst = find_nearest(verdicts)
    times = [say_ratios([ratio for name, ratio in ratios.items() if form_of(name) == form]) for form in TIMED]
    return f"| {title} | {' | '.join(shares)} | {worst:.0f} dB | {' | '.join(times)} |\n"


def begin_runtimes() -> tuple[str, str]:
    """The first lines of that table."""
    cells = ["runtime", *FORMS, *OTHER_FORMS, "least", *(f"{form} / float" for form in TIMED)]
    return f"| {' | '.join(cells)} |\n", f"|{'---|' * len(cells)}\n"


def say_ratios(ratios: Sequence[float]) -> str:
    """Their median, least and most."""
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"


def form_of(name: str) -> str:
    """Of the name of a file the form; empty for a model in float."""
    return name.removesuffix(".onnx").partition(".")[2]


def find_rounded(verdicts: Mapping[str, Verdict], forms: Forms, names: Sequence[str]) -> dict[str, str]:
    """Of these files those that are near: the form that is rounded otherwise, of which no file is nearer, and how near."""
    found: dict[str, float] = {}
    nearest: dict[str, float] = {}
    for name, verdict in verdicts.items():
        for form in forms[name] if isinstance(verdict, Comparison) else ():
            nearest[form] = max(nearest.get(form, 0.0), verdict.decibels)
    for name in names:
        verdict, form = verdicts[name], min(forms[name], key=lambda form: nearest.get(form, np.inf))
        if isinstance(verdict, Comparison) and verdict.decibels >= NEAR and nearest[form] < APART:
            found[form] = min(found.get(form, np.inf), verdict.decibels)
    return {form: f"rounds otherwise: {decibels:.1f} dB" for form, decibels in found.items()}


def find_nearest(verdicts: Mapping[str, Verdict]) -> float:
    """Decibels between the answers and onnxruntime's: the least of our files that are right."""
    return min(v.decibels for k, v in verdicts.items() if isinstance(v, Comparison) and is_right(v) and is_quantized(k))


def is_quantized(name: str) -> bool:
    """Whether it is a network in one of our forms."""
    return not name.startswith("probe-") and name.count(".") > 1


def write_oldest(path: Path, oldest: Mapping[str, str], made: str) -> None:
    """The module of versions of onnxruntime."""
    oldest = {form: version.removesuffix(".0") for form, version in oldest.items()}
    rows = {
        version: sorted(form for form, at in oldest.items() if at == version)
        for version in dict.fromkeys(oldest.values())
    }
    text = "".join(f"    {json.dumps(version)}: {list_lines(forms)},\n" for version, forms in rows.items())
    path.write_text(
        '"""The first onnxruntime that runs each form of a file (graph/forms.py) as the newest does.\n\n'
        f'Written by {made}, not by hand.\n"""\n\n'
        f"SINCE: dict[str, tuple[str, ...]] = {{\n{text}}}  # fmt: skip\n"
        '"""Version -> the forms that are right from it on; the first of those that were run, older ones were not."""\n\n'
        "OLDEST = {form: version for version, forms in SINCE.items() for form in forms}\n"
    )


def list_lines(items: Sequence[str]) -> str:
    """A tuple over several lines."""
    return "(\n" + "".join(f"        {json.dumps(item)},\n" for item in items) + "    )"


def write_runtimes(
    path: Path, rows: Mapping[str, tuple[str, Mapping[str, str]]], nearest: Mapping[str, float], made: str
) -> None:
    """The module of runtimes: name -> title with version, how near its answers are, and culprits."""
    titles = "".join(f"    {json.dumps(name)}: {json.dumps(title)},\n" for name, (title, _) in rows.items())
    least = "".join(f"    {json.dumps(name)}: {int(nearest[name])},\n" for name in rows)
    text = "".join(
        f"    {json.dumps(name)}: {{\n"
        + "".join(f"        {json.dumps(form)}: {json.dumps(why)},\n" for form, why in sorted(culprits.items()))
        + "    },\n"
        for name, (_, culprits) in rows.items()
    )
    path.write_text(
        '"""What other runtimes than onnxruntime make of the forms of a file (graph/forms.py).\n\n'
        f'Written by {made}, not by hand.\n"""\n\n'
        f"TITLES = {{\n{titles}}}\n"
        '"""Runtime -> its name and the version that was run."""\n\n'
        f"NEAREST = {{\n{least}}}\n"
        '"""Runtime -> the least SQNR in dB between its answers and onnxruntime\'s, of all files that it takes."""\n\n'
        f"ROUNDED = {json.dumps(ROUNDED, indent=4)}\n"
        '"""Runtime -> form -> what it rounds otherwise in deep networks, and how near that is to onnxruntime."""\n\n'
        f"UNTAKEN: dict[str, dict[str, str]] = {{\n{text}}}  # fmt: skip\n"
        '"""Runtime -> form -> what becomes of a file with it, in the words of the runtime."""\n'
    )
