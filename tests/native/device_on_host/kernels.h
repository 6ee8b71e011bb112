#pragma once

namespace device_on_host {

// The threads of a block, last first.
extern bool backwards;

}  // namespace device_on_host
