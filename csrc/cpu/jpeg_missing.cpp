// In the place of jpeg.cpp where there is no libjpeg-turbo: takes no file, so that all go to Pillow.
#include "cpu/jpeg.h"

namespace imagen_fast {

struct JpegReader::Codec {};

JpegReader::JpegReader(bool) {}
JpegReader::~JpegReader() = default;

JpegSize JpegReader::open(const std::uint8_t*, std::size_t, std::int64_t) {
    throw JpegError("built without libjpeg-turbo");
}
int JpegReader::orientation() const { return 0; }
JpegSize JpegReader::scaled(int) const { return {}; }
void JpegReader::start(const Region&, int) {}
void JpegReader::start_library() {}
JpegReader::Rows JpegReader::rows(std::int64_t) { return {}; }
void JpegReader::finish() {}
bool JpegReader::is_ours() const { return false; }
bool JpegReader::coefficients(std::vector<std::int16_t>&) { return false; }

}  // namespace imagen_fast
