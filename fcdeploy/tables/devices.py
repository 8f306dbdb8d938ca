"""Devices that networks are put on: core, clock, memory, and how long their instructions take. No logic.

Clocks and memory are those of the makers' data sheets: of a family the part that is common on boards.  Nothing was timed on a
real device: `cycles` are a range, from the cores' manuals and from what flash, caches and second pipelines can change.
"""

from __future__ import annotations

from dataclasses import dataclass

KB, MB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Device:
    """`ram` and `flash` in bytes, None where there is more than a network needs; `cycles` for an instruction, from and to.

    `kernels` is a key of `device_costs.COSTS`: the native code that it runs; `target` what `fcdeploy compile` makes that for,
    empty where only a folder of C will do.
    """

    name: str
    core: str
    mhz: int
    ram: int | None
    flash: int | None
    kernels: str
    target: str
    cycles: tuple[float, float]
    source: str


DEVICES = {
    row.name: row
    for row in (
        Device("stm32f4", "Cortex-M4", 168, 192 * KB, MB, "dsp", "cortex-m4", (1.1, 1.8), "ST DS8626, STM32F407"),
        Device("stm32h7", "Cortex-M7", 480, 512 * KB, 2 * MB, "dsp", "cortex-m7", (0.6, 1.3),
               "ST DS12110, STM32H743; RAM: AXI SRAM"),
        Device("stm32n6", "Cortex-M55", 800, 4200 * KB, None, "mve", "cortex-m55", (1.0, 2.5),
               "ST product page of the STM32N657: 4.2 MB of SRAM, no flash inside"),
        Device("rp2040", "Cortex-M0+", 133, 264 * KB, 2 * MB, "m0", "cortex-m0", (1.2, 2.0),
               "RP2040 data sheet; flash of a Pico"),
        Device("rp2350", "Cortex-M33", 150, 520 * KB, 4 * MB, "dsp", "cortex-m33", (1.0, 1.8),
               "RP2350 data sheet; flash of a Pico 2"),
        Device("nrf52840", "Cortex-M4", 64, 256 * KB, MB, "dsp", "cortex-m4", (1.1, 2.0),
               "nRF52840 product specification"),
        Device("esp32s3", "Xtensa LX7", 240, 512 * KB, 8 * MB, "plain", "", (1.0, 3.0),
               "ESP32-S3 data sheet; flash of N8 modules"),
        Device("raspberry-pi-4", "Cortex-A72", 1500, None, None, "neon", "aarch64", (0.35, 1.2), "BCM2711, product brief"),
        Device("raspberry-pi-5", "Cortex-A76", 2400, None, None, "dotprod", "aarch64", (0.25, 0.8), "BCM2712, product brief"),
    )
}  # fmt: skip
"""Of the ESP32-S3 instructions are counted in ARM's Thumb code: no emulated Xtensa core was built for.
The STM32N6 runs from RAM or from flash outside: weights that lie there take RAM, or are read at the speed of that flash."""
