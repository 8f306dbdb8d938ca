#!/usr/bin/env bash
# zig's C compiler (ziglang 0.17.1) for a Cortex-M4, M7, M33 or M55.
#
# Expected: as with clang and its -mcpu=cortex-m4, the core's usual floating-point unit, and with a target of the hard-float ABI
# (eabihf) in any case: a product of floats is one instruction, vmul.f32.
# Seen: -mcpu=cortex_m4 has no floating-point unit. Without a word the product becomes a call of __aeabi_fmul, some hundred
# instructions, while floats are still passed as the hard-float ABI asks, and __ARM_FP is not defined, so that code that asks for it
# takes the core for one without. -mcpu=cortex_m4+vfp4d16sp (M7, M33, M55: +fp_armv8d16sp) gives what was meant.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1
cat >"$folder/product.c" <<'C'
float product(float a, float b) { return a * b; }
#ifdef __ARM_FP
const int unit = 1;
#else
const int unit = 0;
#endif
C
for cpu in cortex_m4 cortex_m7 cortex_m33 cortex_m55 cortex_m4+vfp4d16sp cortex_m7+fp_armv8d16sp; do
  (cd "$folder" && venv/bin/python -m ziglang cc -target thumb-freestanding-eabihf -mcpu=$cpu -std=c11 -O2 -S product.c -o $cpu.s 2>"$cpu.said")
  found=routine
  if grep -q 'vmul.f32' "$folder/$cpu.s"; then found=instruction; fi
  said="$(grep -ciE 'float|fpu|abi' "$folder/$cpu.said" || true)"
  echo "-mcpu=$cpu: $found, $said warnings of it"
  case $cpu in
    *+*) test $found = instruction ;;
    *)
      test $found = routine
      grep -q '__aeabi_fmul' "$folder/$cpu.s"
      test "$said" = 0
      ;;
  esac
done
