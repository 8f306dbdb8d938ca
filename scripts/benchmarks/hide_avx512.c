/* Preloaded, answers every cpuid instruction of the process without AVX-512, VNNI and AMX: programs that choose kernels by it take
   those of AVX2.  Linux on Intel CPUs that can let cpuid fault: arch_prctl(ARCH_SET_CPUID, 0) makes it raise SIGSEGV, and the
   handler lets it run once, clears bits of leaf 7, and goes on behind it.  Ends the process with 77 where cpuid does not fault. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#define SET_CPUID 0x1012 /* of arch_prctl: 0 lets cpuid fault, 1 lets it run */

static void answer(int sig, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *at = (const uint8_t *)r[REG_RIP];
  if (at[0] != 0x0f || at[1] != 0xa2) { signal(SIGSEGV, SIG_DFL); return; }
  uint32_t leaf = r[REG_RAX], sub = r[REG_RCX], a = leaf, b = 0, c = sub, d = 0;
  syscall(SYS_arch_prctl, SET_CPUID, 1);
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  syscall(SYS_arch_prctl, SET_CPUID, 0);
  if (leaf == 7 && sub == 0) {
    b &= ~(1u<<16|1u<<17|1u<<21|1u<<26|1u<<27|1u<<28|1u<<30|1u<<31);
    c &= ~(1u<<1|1u<<6|1u<<11|1u<<12|1u<<14);
    d &= ~(1u<<2|1u<<3|1u<<8|1u<<22|1u<<23|1u<<24|1u<<25);
  }
  if (leaf == 7 && sub == 1) { a &= ~(1u<<4|1u<<5|1u<<21); d &= ~(1u<<4|1u<<5|1u<<10); }
  r[REG_RAX] = a; r[REG_RBX] = b; r[REG_RCX] = c; r[REG_RDX] = d; r[REG_RIP] += 2;
}
__attribute__((constructor)) static void start(void) {
  struct sigaction s = {0}; s.sa_sigaction = answer; s.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &s, 0);
  if (syscall(SYS_arch_prctl, SET_CPUID, 0)) _exit(77);
}
