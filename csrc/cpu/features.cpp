#include "cpu/features.h"

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace imagen_fast {

#if defined(__x86_64__) && defined(__GNUC__)

namespace {

struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers r;
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

bool bit(unsigned word, int position) { return (word >> position) & 1u; }

// The register sets that the operating system keeps over a context switch (XCR0).
std::uint64_t saved_state() {
    if (!bit(cpuid(1, 0).ecx, 27)) return 0;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Linux hands out the AMX tile registers only to a process that asks for them.
bool may_use_tiles() {
#if defined(__linux__)
    constexpr int request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

}  // namespace

CpuFeatures cpu_features() {
    constexpr std::uint64_t ymm = 0x6, zmm = 0xe6, tiles = 0x60000;
    const Registers leaf1 = cpuid(1, 0), leaf7 = cpuid(7, 0), leaf7_1 = cpuid(7, 1);
    const std::uint64_t state = saved_state();
    const bool fma = bit(leaf1.ecx, 12);
    CpuFeatures found;
    // The kernels also use the bit manipulation that came with it: one flag for both.
    const bool bmi = bit(leaf7.ebx, 3) && bit(leaf7.ebx, 8);
    found.avx2 = (state & ymm) == ymm && bit(leaf7.ebx, 5) && fma && bmi;
    // The kernels also use the byte/word, doubleword and vector-length extensions: one flag for the four.
    found.avx512f = found.avx2 && (state & zmm) == zmm && bit(leaf7.ebx, 16) && bit(leaf7.ebx, 17) &&
                    bit(leaf7.ebx, 30) && bit(leaf7.ebx, 31);
    found.avx512_bf16 = found.avx512f && bit(leaf7_1.eax, 5);
    found.amx_bf16 = (state & tiles) == tiles && bit(leaf7.edx, 22) && bit(leaf7.edx, 24) && may_use_tiles();
    return found;
}

#else

CpuFeatures cpu_features() { return {}; }

#endif

}  // namespace imagen_fast
