#include "cpu/memory.h"

#include <cstdlib>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace imagen_fast {

bool keep_freed_memory() {
#if defined(__GLIBC__)
    // No allocation gets a mapping of its own, the heap grows by 64 MB at a time and never shrinks.
    return mallopt(M_MMAP_MAX, 0) && mallopt(M_TOP_PAD, 64 << 20) && mallopt(M_TRIM_THRESHOLD, -1);
#else
    return false;
#endif
}

}  // namespace imagen_fast
