#include "isa.h"

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace moorage {

namespace {

#if defined(__x86_64__)

// Linux gives tile registers' state (8 KiB per thread) only to processes that ask: Documentation/arch/x86/xstate.rst.
bool tiles_permitted() {
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// The compiler's own detection also asks XGETBV whether the operating system saves the registers.
Features detect() {
    __builtin_cpu_init();
    Features found{};
    found.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    found.avx_vnni = found.avx2 && __builtin_cpu_supports("avxvnni");
    found.avx512 = found.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vnni");
    found.avx512_bf16 = found.avx512 && __builtin_cpu_supports("avx512bf16");
    found.amx = found.avx512_bf16 && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
                __builtin_cpu_supports("amx-bf16") && tiles_permitted();
    return found;
}

#elif defined(__aarch64__)

Features detect() {
    Features found{};
    found.neon = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    return found;
}

#else

Features detect() { return {}; }

#endif

}  // namespace

const Features& features() {
    static const Features found = detect();
    return found;
}

}  // namespace moorage
