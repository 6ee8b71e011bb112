#include "cpu/jpeg.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

// Need the C declarations above.
#include <jpeglib.h>

#include <jerror.h>

#include "cpu/baseline.h"
#include "cpu/exif.h"

namespace imagen_fast {

namespace {

struct Errors {
    jpeg_error_mgr base;
    std::jmp_buf jump;
    char warning[JMSG_LENGTH_MAX];  // the first
};

[[noreturn]] void leave(j_common_ptr codec) { std::longjmp(reinterpret_cast<Errors*>(codec->err)->jump, 1); }

// Counts warnings as the library does, keeps the first, prints nothing. A marker without a length among the
// segments is no warning to the library, but Pillow refuses some of them.
void note(j_common_ptr codec, int level) {
    jpeg_error_mgr& errors = *codec->err;
    if (level >= 0 && errors.msg_code != JTRC_PARMLESS_MARKER) return;
    if (errors.num_warnings++ == 0) errors.format_message(codec, reinterpret_cast<Errors&>(errors).warning);
}

}  // namespace

// libjpeg reports an error by a longjmp. It lands in one of the methods below, and no object with a
// destructor lives in a frame that it crosses: only then is an exception thrown.
struct JpegReader::Codec {
    Codec() {
        std::memset(&codec, 0, sizeof codec);
        codec.err = jpeg_std_error(&errors.base);
        errors.base.error_exit = leave;
        errors.base.emit_message = note;
    }
    ~Codec() { jpeg_destroy_decompress(&codec); }

    // A decoder of its own for each file: one that is used again has the tables of the file before, and would
    // decode by them a file that has none.
    bool read_header() {
        jpeg_destroy_decompress(&codec);
        errors.base.num_warnings = 0;
        if (setjmp(errors.jump)) return false;
        jpeg_create_decompress(&codec);
        // Where the orientation is, and what Pillow reads besides.
        for (const int number : {0, 1, 2, 13, 14}) jpeg_save_markers(&codec, JPEG_APP0 + number, 0xffff);
        jpeg_mem_src(&codec, data, static_cast<unsigned long>(size));
        jpeg_read_header(&codec, TRUE);
        return true;
    }

    // A region may end long before the file does, so whether the file is whole is asked here. Restart markers
    // and stuffed bytes are all that coded data may hold; another scan or frame after an only one is an
    // error, and any other segment is rare.
    bool ends() {
        if (jpeg_input_complete(&codec)) return true;
        const std::uint8_t *p = codec.src->next_input_byte, *end = p + codec.src->bytes_in_buffer;
        int marker = codec.unread_marker;
        while (marker == 0 || (marker >= JPEG_RST0 && marker < JPEG_RST0 + 8)) {
            p = static_cast<const std::uint8_t*>(std::memchr(p, 0xff, static_cast<std::size_t>(end - p)));
            while (p && p != end && *p == 0xff) ++p;
            if (!p || p == end) return false;
            marker = *p++;
        }
        return marker == JPEG_EOI;
    }

    // Where scans are missing the library smooths the blocks, and not each version in the same way.
    bool all_scans() const {
        if (!codec.progressive_mode) return true;
        const int* bits = codec.coef_bits[0];
        return std::all_of(bits, bits + DCTSIZE2 * codec.num_components, [](int left) { return left == 0; });
    }

    // False where our own decoder need not try.
    bool describe(BaselineImage& image) const {
        if (codec.progressive_mode || codec.arith_code || codec.data_precision != 8 ||
            codec.comps_in_scan != codec.num_components || codec.Ss != 0 || codec.Se != DCTSIZE2 - 1 ||
            codec.Ah != 0 || codec.Al != 0)
            return false;
        const bool gray = codec.num_components == 1 && codec.jpeg_color_space == JCS_GRAYSCALE;
        if (!gray && !(codec.num_components == 3 && codec.jpeg_color_space == JCS_YCbCr)) return false;
        image = {codec.image_width,      codec.image_height,         codec.num_components, {},
                 codec.restart_interval, codec.src->next_input_byte, data + size};
        for (int i = 0; i < codec.num_components; ++i) {
            const jpeg_component_info& c = codec.comp_info[i];
            const JQUANT_TBL* quantisation = codec.quant_tbl_ptrs[c.quant_tbl_no & (NUM_QUANT_TBLS - 1)];
            const JHUFF_TBL* dc = codec.dc_huff_tbl_ptrs[c.dc_tbl_no & (NUM_HUFF_TBLS - 1)];
            const JHUFF_TBL* ac = codec.ac_huff_tbl_ptrs[c.ac_tbl_no & (NUM_HUFF_TBLS - 1)];
            if (codec.cur_comp_info[i] != &c || !quantisation || !dc || !ac ||
                std::max({c.quant_tbl_no, c.dc_tbl_no, c.ac_tbl_no}) >= NUM_QUANT_TBLS)
                return false;
            image.component[i] = {c.h_samp_factor,
                                  c.v_samp_factor,
                                  quantisation->quantval,
                                  {dc->bits + 1, dc->huffval},
                                  {ac->bits + 1, ac->huffval}};
        }
        return true;
    }

    bool set_scale(int eighths) {
        if (setjmp(errors.jump)) return false;
        codec.scale_num = static_cast<unsigned>(eighths);
        codec.scale_denom = 8;
        jpeg_calc_output_dimensions(&codec);
        return true;
    }

    // Interpolating the colour takes one more pixel on either side, and at least three columns of colour:
    // 4:1:1 halves the width twice. The library rounds the left edge down to a block; rows are skipped only
    // at the top, since skipping later rows can go wrong (libjpeg-turbo #915).
    bool start(const Region& region) {
        if (setjmp(errors.jump)) return false;
        codec.out_color_space = JCS_RGB;
        jpeg_start_decompress(&codec);
        const std::int64_t width = codec.output_width;
        constexpr std::int64_t narrowest = 16;
        const std::int64_t left = std::max<std::int64_t>(0, std::min(region.left - 1, width - narrowest));
        const std::int64_t right = std::min(width, std::max(region.right + 1, left + narrowest));
        // At smaller scales the library would take colour of a quarter of the resolution from a wrong place.
        const bool crops = codec.scale_num == 8 || codec.max_h_samp_factor * codec.max_v_samp_factor <= 4;
        JDIMENSION origin = 0;
        if (crops && (left > 0 || right < width)) {
            JDIMENSION span = static_cast<JDIMENSION>(right - left);
            origin = static_cast<JDIMENSION>(left);
            jpeg_crop_scanline(&codec, &origin, &span);
        }
        offset = (region.left - static_cast<std::int64_t>(origin)) * 3;
        remaining = region.height();
        if (region.top > 0) jpeg_skip_scanlines(&codec, static_cast<JDIMENSION>(region.top));
        return true;
    }

    bool read(std::int64_t count) {
        if (setjmp(errors.jump)) return false;
        JSAMPROW to[MOST_JPEG_ROWS];
        for (std::int64_t i = 0; i < count; ++i) to[i] = lines.data() + i * pitch;
        // It may stop early, at the end of a row of blocks.
        for (read_ = 0; read_ < count;)
            read_ += jpeg_read_scanlines(&codec, to + read_, static_cast<JDIMENSION>(count - read_));
        return true;
    }

    [[noreturn]] void fail() {
        char message[JMSG_LENGTH_MAX];
        errors.base.format_message(reinterpret_cast<j_common_ptr>(&codec), message);
        throw JpegError(message);
    }

    const std::uint8_t* data = nullptr;
    std::size_t size = 0;
    jpeg_decompress_struct codec;
    Errors errors;
    std::int64_t offset = 0;                // bytes from a line's beginning to the region's
    std::int64_t pitch = 0, remaining = 0;  // bytes of a line, and lines of the region to come
    std::int64_t read_ = 0;                 // a member, since it changes between setjmp and longjmp
    std::vector<std::uint8_t> lines;

    Region region;  // what is left of it
    int eighths = 8;
    BaselineDecoder ours;
    bool is_ours = false;
};

JpegReader::JpegReader(bool ours) : codec_(new Codec), ours_(ours) {}
JpegReader::~JpegReader() = default;

JpegSize JpegReader::open(const std::uint8_t* data, std::size_t size, std::int64_t most_pixels) {
    Codec& c = *codec_;
    c.data = data;
    c.size = size;
    if (!c.read_header()) c.fail();
    const JpegSize found{c.codec.image_width, c.codec.image_height};
    if (c.codec.num_components != 1 && c.codec.num_components != 3)
        throw JpegError("the JPEG has " + std::to_string(c.codec.num_components) +
                        " colour components; 1 and 3 are decoded");
    if (found.width * found.height > most_pixels)
        throw JpegError("the JPEG has " + std::to_string(found.width * found.height) + " pixels; at most " +
                        std::to_string(most_pixels) + " are decoded");
    return found;
}

int JpegReader::orientation() const {
    ExifOrientation found;
    for (const jpeg_marker_struct* m = codec_->codec.marker_list; m; m = m->next)
        found.segment(m->marker - JPEG_APP0, m->data, m->data_length);
    return found.value();
}

JpegSize JpegReader::scaled(int eighths) const {
    if (!codec_->set_scale(eighths)) codec_->fail();
    return {codec_->codec.output_width, codec_->codec.output_height};
}

void JpegReader::start(const Region& region, int eighths) {
    Codec& c = *codec_;
    const JpegSize image = scaled(eighths);
    if (region.left < 0 || region.top < 0 || region.left >= region.right || region.top >= region.bottom ||
        region.right > image.width || region.bottom > image.height)
        throw std::invalid_argument("the region must be a non-empty part of the image");
    c.region = region;
    c.eighths = eighths;
    BaselineImage plain;
    c.is_ours = ours_ && c.describe(plain) && c.ours.start(plain, region, eighths);
    if (!c.is_ours) start_library();
}

void JpegReader::start_library() {
    Codec& c = *codec_;
    c.pitch = static_cast<std::int64_t>(c.codec.output_width) * 3 + JPEG_ROW_SLACK;
    c.lines.resize(static_cast<std::size_t>(c.pitch * MOST_JPEG_ROWS));
    if (!c.start(c.region)) c.fail();
    if (!c.all_scans()) throw JpegError("the JPEG lacks some of its scans");
}

JpegReader::Rows JpegReader::rows(std::int64_t most) {
    Codec& c = *codec_;
    if (c.is_ours) {
        const std::int64_t count = c.ours.rows(most);
        c.region.top += count;
        if (count || c.region.top == c.region.bottom) return {c.ours.pixels(), count, c.ours.pitch()};
        // Something is wrong from here on. What that means is the library's to say, from the beginning.
        c.is_ours = false;
        start_library();
    }
    const std::int64_t count = std::min({most, c.remaining, MOST_JPEG_ROWS});
    if (!c.read(count)) c.fail();
    c.remaining -= count;
    return {c.lines.data() + c.offset, count, c.pitch};
}

void JpegReader::finish() {
    const Errors& errors = codec_->errors;
    if (errors.base.num_warnings) throw JpegError("the JPEG is corrupt: " + std::string(errors.warning));
    if (!codec_->ends())
        throw JpegError("no end marker follows the coded data: the JPEG is truncated, or goes on");
}

bool JpegReader::is_ours() const { return codec_->is_ours; }

bool JpegReader::coefficients(std::vector<std::int16_t>& out) {
    BaselineImage plain;
    return codec_->describe(plain) && codec_->ours.coefficients(plain, out);
}

JpegSize jpeg_size(const std::uint8_t* data, std::size_t size) { return JpegReader().open(data, size); }

void decode_jpeg(const std::uint8_t* data, std::size_t size, const Region& region, std::uint8_t* out) {
    JpegReader reader;
    reader.open(data, size);
    reader.start(region);
    const std::size_t bytes = static_cast<std::size_t>(region.width()) * 3;
    for (std::int64_t left = region.height(); left > 0;) {
        const JpegReader::Rows rows = reader.rows(left);
        for (std::int64_t i = 0; i < rows.count; ++i, out += bytes)
            std::memcpy(out, rows.pixels + i * rows.pitch, bytes);
        left -= rows.count;
    }
    reader.finish();
}

}  // namespace imagen_fast
