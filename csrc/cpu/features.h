// What this processor can do, as far as the choice of a kernel or of a number type depends on it.
#pragma once

namespace imagen_fast {

struct CpuFeatures {
    bool avx2 = false;
    bool avx512f = false;
    bool avx512_bf16 = false;
    bool amx_bf16 = false;
};

// Counts a feature only where the operating system saves its registers too.
CpuFeatures cpu_features();

}  // namespace imagen_fast
