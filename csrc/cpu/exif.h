// The orientation in the EXIF data of a JPEG, as Pillow finds it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace imagen_fast {

class ExifOrientation {
public:
    // The contents of an APPn segment.
    void segment(int number, const std::uint8_t* data, std::size_t size);

    // 1 to 8, 1 where there is none; 0 where it takes Pillow to say: the data are irregular in any way, in
    // several segments, or of another kind (XMP); or another segment is one that Pillow may refuse the file
    // for.
    int value() const;

private:
    bool exif_ = false, xmp_ = false, unclear_ = false;
    int found_ = 0;
};

}  // namespace imagen_fast
