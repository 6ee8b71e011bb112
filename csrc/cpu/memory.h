// How this process's allocator treats memory that was freed.
#pragma once

namespace imagen_fast {

// Never gives freed memory back to the system, so that the next step finds its pages still mapped.
// False where the C library is not glibc: nothing was changed.
bool keep_freed_memory();

}  // namespace imagen_fast
