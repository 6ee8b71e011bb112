// Our own decoder of plain JPEGs: baseline, one scan, gray or YCbCr at the usual resolutions of colour. It
// reads past what a region does not show, and gives the pixels that libjpeg-turbo gives, bit for bit.
//
// Nothing odd is decided here: where a file is not plain, or is broken, the caller asks libjpeg-turbo.
#pragma once

#include <cstdint>
#include <vector>

#include "common/region.h"
#include "cpu/baseline_kernels.h"

namespace imagen_fast {

struct BaselineComponent {
    int across, down;                   // sampling factors
    const std::uint16_t* quantisation;  // [64], row by row
    HuffmanCode dc, ac;
};

// What the headers of a file say.
struct BaselineImage {
    std::int64_t width, height;
    int components;
    BaselineComponent component[MOST_COMPONENTS];
    std::int64_t restart_interval;  // in MCUs; 0: none
    const std::uint8_t* code;       // from the scan's header on
    const std::uint8_t* end;        // of the file
};

class BaselineDecoder {
public:
    // False where this image is not plain, or this processor has no instructions for it. `region` is of the
    // image at `eighths` / 8 of its scale. The file must stay until the last row.
    bool start(const BaselineImage& image, const Region& region, int eighths);

    // The region's next rows, RGB, up to `most`, so many bytes apart; 0 where the file is broken. They stay
    // until the next call.
    std::int64_t rows(std::int64_t most);
    std::uint8_t* pixels() { return lines_.data(); }
    std::int64_t pitch() const { return pitch_; }

    // See JpegReader::coefficients.
    bool coefficients(const BaselineImage& image, std::vector<std::int16_t>& out);

private:
    struct Plane {
        std::int64_t width, height;  // of the component, in pixels
        bool wide, high;             // as the image, not half of that
        std::int64_t mcu_height;
        std::int64_t left, pitch, rows;  // the first column that is kept; a ring of rows
        std::vector<std::uint8_t> pixels;
        std::uint8_t* row(std::int64_t y) { return pixels.data() + BEFORE + y % rows * pitch; }
    };
    // Bytes in front of a row, one of which is a neighbour of the first pixel.
    static constexpr std::int64_t BEFORE = 32;

    bool set_image(const BaselineImage& image, int eighths);
    void begin_segment();
    bool restart();
    template <class Decode>
    bool each_run(std::int64_t count, Decode decode);
    bool decode_mcu_row();
    std::int64_t mcu_row(std::int64_t y) const;
    const std::uint8_t* row_of(int component, std::int64_t y);

    DcTable dc_[MOST_COMPONENTS];
    AcTable ac_[MOST_COMPONENTS];
    std::int16_t quantisation_[MOST_COMPONENTS][64];
    McuLayout layout_;
    int components_;
    std::int64_t mcus_across_, mcus_down_;

    CodeReader reader_;
    std::vector<std::uint8_t> code_;
    const std::uint8_t* coming_;  // of the file, not yet in code_
    const std::uint8_t* end_;
    std::int32_t last_[MOST_COMPONENTS];
    std::int64_t interval_, left_in_interval_, restarts_;

    Region region_;
    std::int64_t next_row_, next_mcu_row_;
    bool broken_;
    std::int64_t first_mcu_row_, first_mcu_, last_mcu_;  // what is kept
    Plane planes_[MOST_COMPONENTS];
    std::vector<std::uint8_t> widened_[MOST_COMPONENTS], lines_;
    std::int64_t pitch_ = 0;
};

}  // namespace imagen_fast
