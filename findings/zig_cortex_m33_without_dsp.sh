#!/usr/bin/env bash
# zig's C compiler (ziglang 0.17.1) for a Cortex-M33: its instructions on two 16-bit numbers at a time (SMLAD and the like).
#
# Expected: as LLVM's own cortex-m33 and as Cortex-M4 and M7 here: __ARM_FEATURE_DSP is defined and __smlad is one instruction. Every
# Cortex-M33 microcontroller that is sold for signal processing has them.
# Seen: -mcpu=cortex_m33 leaves them out without a word; with +dsp they are there. Code that asks for the macro takes its plain C
# path, which needs several times the instructions for dense and convolutional layers.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1
cat >"$folder/macro.c" <<'C'
#ifdef __ARM_FEATURE_DSP
const int dsp = 1;
#else
const int none = 1;
#endif
C
for cpu in cortex_m4 cortex_m7 cortex_m33 cortex_m33+fp_armv8d16sp cortex_m33+dsp; do
  (cd "$folder" && venv/bin/python -m ziglang cc -target thumb-freestanding-eabi -mcpu=$cpu -std=c11 -O2 -S macro.c -o $cpu.s 2>/dev/null)
  found=none
  if grep -q '^dsp:' "$folder/$cpu.s"; then found=dsp; fi
  echo "-mcpu=$cpu: $found"
  case $cpu in
    cortex_m33 | cortex_m33+fp_armv8d16sp) test $found = none ;;
    *) test $found = dsp ;;
  esac
done
