#pragma once

namespace imagen_fast {

// 0 where there is no driver or no device.
int device_count();

}  // namespace imagen_fast
