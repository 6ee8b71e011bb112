// nvJPEG's functions that are used, by libjpeg, at once and heedless of any stream: as its engine is. How it
// behaves is set by `behave`.
#include <csetjmp>
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>

#include <atomic>

namespace {

enum : int { SUCCESS = 0, BROKEN = 3, FAILED = 6, NO_ENGINE = 7 };

struct Behaviour {
    // `skip`: every so many images of a batch; `fail`: batches with an image of this width, or all for -1.
    std::atomic<int> engine, skip, fail, version;
};
Behaviour behaviour{{1}, {0}, {0}, {13}};
std::atomic<int> alive{0}, ever{0}, by_engine{0}, by_kernels{0};

struct Handle {
    int backend;
};
struct State {
    int count = 0;
};
struct Stream {
    bool baseline = false;
};
struct Image {
    unsigned char* channel[4];
    std::size_t pitch[4];
};

struct Errors {
    jpeg_error_mgr base;
    jmp_buf jump;
};

void leave(j_common_ptr codec) { longjmp(reinterpret_cast<Errors*>(codec->err)->jump, 1); }
void say_nothing(j_common_ptr) {}

bool decode(const unsigned char* data, std::size_t size, const Image& image) {
    jpeg_decompress_struct codec;
    Errors errors;
    codec.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = leave;
    errors.base.output_message = say_nothing;
    jpeg_create_decompress(&codec);
    if (setjmp(errors.jump)) {
        jpeg_destroy_decompress(&codec);
        return false;
    }
    jpeg_mem_src(&codec, data, static_cast<unsigned long>(size));
    jpeg_read_header(&codec, TRUE);
    codec.out_color_space = JCS_RGB;
    jpeg_start_decompress(&codec);
    while (codec.output_scanline < codec.output_height) {
        JSAMPROW row = image.channel[0] + codec.output_scanline * image.pitch[0];
        jpeg_read_scanlines(&codec, &row, 1);
    }
    jpeg_finish_decompress(&codec);
    jpeg_destroy_decompress(&codec);
    return errors.base.num_warnings == 0;
}

template <class T>
int made(T* object, T** to) {
    *to = object;
    ++alive;
    ++ever;
    return SUCCESS;
}

template <class T>
int gone(T* object) {
    delete object;
    --alive;
    return SUCCESS;
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void behave(int engine, int skip, int fail, int version) {
    behaviour.engine = engine;
    behaviour.skip = skip;
    behaviour.fail = fail;
    behaviour.version = version;
    by_engine = by_kernels = 0;
}
EXPORTED int count_alive() { return alive; }
EXPORTED int count_ever() { return ever; }
EXPORTED int count_by_engine() { return by_engine; }
EXPORTED int count_by_kernels() { return by_kernels; }

EXPORTED int nvjpegGetProperty(int which, int* value) {
    *value = which == 0 ? behaviour.version.load() : 0;
    return SUCCESS;
}
EXPORTED int nvjpegCreateEx(int backend, void*, void*, unsigned, Handle** handle) {
    if (backend == 3 && !behaviour.engine) return NO_ENGINE;
    return made(new Handle{backend}, handle);
}
EXPORTED int nvjpegDestroy(Handle* handle) { return gone(handle); }
EXPORTED int nvjpegJpegStateCreate(Handle*, State** state) { return made(new State, state); }
EXPORTED int nvjpegJpegStateDestroy(State* state) { return gone(state); }
EXPORTED int nvjpegJpegStreamCreate(Handle*, Stream** stream) { return made(new Stream, stream); }
EXPORTED int nvjpegJpegStreamDestroy(Stream* stream) { return gone(stream); }
EXPORTED int nvjpegJpegStreamParseHeader(Handle*, const unsigned char* data, std::size_t size,
                                         Stream* stream) {
    stream->baseline = false;
    for (std::size_t i = 0; i + 1 < size; ++i)
        if (data[i] == 0xff && data[i + 1] == 0xc0) stream->baseline = true;
    return SUCCESS;
}
EXPORTED int nvjpegDecodeBatchedSupported(Handle*, Stream* stream, int* unsupported) {
    *unsupported = !stream->baseline;
    return SUCCESS;
}
EXPORTED int nvjpegDecodeBatchedInitialize(Handle*, State* state, int count, int, int) {
    state->count = count;
    return SUCCESS;
}
EXPORTED int nvjpegDecodeBatched(Handle*, State* state, const unsigned char* const* data,
                                 const std::size_t* sizes, Image* images, void*) {
    for (int i = 0; i < state->count; ++i)
        if (behaviour.fail == -1 || images[i].pitch[0] == 3 * static_cast<std::size_t>(behaviour.fail))
            return FAILED;
    for (int i = 0; i < state->count; ++i) {
        if (behaviour.skip && i % behaviour.skip == 0) continue;
        decode(data[i], sizes[i], images[i]);
        ++by_engine;
    }
    return SUCCESS;
}
EXPORTED int nvjpegDecode(Handle*, State*, const unsigned char* data, std::size_t size, int, Image* image,
                          void*) {
    ++by_kernels;
    return decode(data, size, *image) ? SUCCESS : BROKEN;
}
