"""C text of models whose names are C themselves: they stay in comments and literals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import fails
from hypothesis import example, given
from hypothesis import strategies as st
from native_kernels import KERNELS, compiler, source

from fcdeploy.native.build import Built, build, choose_name, write_sources
from fcdeploy.native.program.steps import Pointwise, Program
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.toolchain import STRICT, compile_c
from fcdeploy.native.writing.library import format_library
from fcdeploy.tables.native import CORES, MACHINES, Level

TRIGRAPHS = dict(zip("=/'()!<>-", "#\\^[]|{}~", strict=True))
PARTS = st.sampled_from(["*", "/", "\\", '"', "'", "?", "\n", "\r", "\0", "\x7f", "é", "%", "0", "n", "a; "])
NAMES = st.builds("".join, st.lists(PARTS)) | st.text()


def make_net(name: str) -> Built:
    """A Neg of two floats; its node, its tensors and the program are called `name`."""
    x, y = Tensor(name, (2,), "float32"), Tensor(f"{name}.", (2,), "float32")
    return build(Program(name, (x,), (y,), (Pointwise(kind="neg", node=name, inputs=(x,), outputs=(y,)),)))


def read_c(text: str) -> tuple[str, list[str]]:
    """What a compiler is left with in the order of C11 5.1.1.2: no comments, literals empty, names all the same; and literals."""
    text = re.sub(r"\?\?([=/'()!<>-])", lambda found: TRIGRAPHS[found[1]], text).replace("\\\n", "")
    literals = []

    def take(found: re.Match[str]) -> str:
        if found[0][0] == "/":
            return " "
        literals.append(found[0][1:-1])
        return '""'

    code = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:[^"\\\n]|\\[^\n])*"', take, text, flags=re.DOTALL)
    return re.sub(r"\s+", "", re.sub(r"[A-Za-z_]\w*", "i", code)), literals


X86 = {level.name: ("-target", "x86_64-linux-gnu", *level.flags) for level in MACHINES["x86_64"].levels}
ARM = {level.name: ("-target", "aarch64-linux-musl", *level.flags) for level in MACHINES["aarch64"].levels}
ALONE = [
    ("layer_sums.h", X86["plain"]), ("layer_small.h", (*X86["plain"], "-DFC_SMALL")), ("layer_block.h", X86["avx2"]),
    ("layer_block.h", ARM["neon"]), ("layer_neon.h", ARM["dotprod"]), ("layer_alone.h", X86["avx2"]),
    ("layer_beside.h", X86["avx2"]), ("layer_beside.h", X86["avx512vnni"]),
    ("layer_avx512.h", X86["avx512vnni"]), ("layer_lanes.h", X86["avx512vnni"]), ("layer_narrow.h", X86["avx512vnni"]),
    ("layer_lanes.h", X86["avx2"]), ("layer_pairs.h", X86["avx2"]), ("layer_short.h", X86["avx2"]),
    ("layer_tiles.h", X86["plain"]), ("layer_dsp.h", CORES["cortex-m4"].flags), ("layer_mve.h", CORES["cortex-m55"].flags),
    ("layer_together.h", CORES["cortex-m4"].flags),
]  # fmt: skip


@pytest.mark.parametrize(("header", "flags"), ALONE, ids=[header for header, _ in ALONE])
def test_parts_of_layers_include_what_they_use(header: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """None of them is a piece of the file that includes it."""
    if not compiler().cross:
        pytest.skip("the compiler makes code for this machine alone")
    (tmp_path / "alone.c").write_text(f'#include "{header}"\n')
    how = [flag for flag in STRICT if flag != "-O2"]
    compile_c(compiler(), [*flags, *how, "-c", f"-I{KERNELS}", "alone.c", "-o", "alone.o"], tmp_path)


@given(NAMES)
@example("a*/ __attribute__((constructor)) static void run(void) { abort(); } /*")
@example("a??/")
@example("*??/\n/ b")
def test_code_is_the_same_whatever_a_model_calls_its_nodes(name: str) -> None:
    named, plain = (make_net(each).source for each in (name, "a"))
    for text, other in zip(named.files.values(), plain.files.values(), strict=True):
        assert isinstance(text, str) and isinstance(other, str) and text.isascii()
        assert read_c(text)[0] == read_c(other)[0]


@pytest.mark.parametrize("name", ["layer", "Library", "string", "fc_pool", "int", "3 nets"])
def test_no_file_of_a_network_is_called_as_a_kernel_or_a_header(name: str, tmp_path: Path) -> None:
    called = choose_name(None, tmp_path / f"{name}.int8.onnx")
    built = make_net(called)
    written = write_sources(built, tmp_path)
    assert len({file.lower() for file in written}) == len(written)
    assert not {file.lower() for file in written} & {"layer.h", "library.h", "string.h", "fc_pool.h"}
    if name != "int":
        with fails(f"--name {name!r} is "):
            choose_name(name, tmp_path / "net.onnx")


def test_parameters_are_words_of_no_language() -> None:
    """Inputs called as what C, C++ and the function itself have: it compiles as it is delivered, its header in C++, too."""
    words = ["int", "inputs", "outputs", "arena", "default", "class", "NULL", "uint8_t", "int_", "int."]
    tensors = [Tensor(word, (2,), "float32") for word in words]
    step = Pointwise(kind="neg", node="n", inputs=(tensors[0],), outputs=(Tensor("outputs", (2,), "float32"),))
    text = build(Program("net", tuple(tensors), step.outputs, (step,))).source.files["net.h"]
    assert isinstance(text, str)
    parameters = re.findall(r"\*(\w+)[,)]", text[text.index("net_run(") :])
    assert len(set(parameters)) == len(words) + 2 and not set(parameters) - {"arena"} & set(words)


@given(NAMES)
@example('"; } int b[] = {1}; //')
@example("a??/")
def test_a_description_is_read_back_as_it_was_written(name: str) -> None:
    named = make_net(name)
    code, literals = read_c(format_library(named.program, named.calls, named.memory, MACHINES["x86_64"].levels))
    assert re.search(r'ii\[\]=(?:"")+;', code), code
    found = "".join(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), each) for each in literals)
    description, _ = json.JSONDecoder().raw_decode(found[found.index("{") :])
    assert description["steps"][0]["node"] == description["inputs"][0]["name"] == name


@pytest.mark.parametrize("level", MACHINES["aarch64"].levels, ids=lambda level: level.name)
def test_all_kernels_stand_in_one_text_for_arm(level: Level, tmp_path: Path) -> None:
    """A network may call any of them: no two have a name in common at any level."""
    found = compiler()
    if not found.cross:
        pytest.skip("the compiler here makes code for this machine alone")
    (tmp_path / "kernels.c").write_text(source())
    how = [
        *STRICT,
        *level.flags,
        "-target",
        MACHINES["aarch64"].triple,
        "-c",
        f"-I{KERNELS}",
        "kernels.c",
        "-o",
        "all.o",
    ]
    compile_c(found, how, tmp_path)
