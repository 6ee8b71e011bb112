#include "cuda/jpeg_decoder.h"

#include <stdexcept>

#include "cpu/workers.h"

namespace imagen_fast {

namespace {

NvjpegLibrary::Image image_of(const JpegTask& task) {
    NvjpegLibrary::Image image{};
    image.channel[0] = task.pixels;
    image.pitch[0] = static_cast<std::size_t>(3 * task.width);
    return image;
}

constexpr unsigned FLAGS = NvjpegLibrary::FLAG_STRICT | NvjpegLibrary::FLAG_INTERPOLATE;

}  // namespace

// What a thread decodes with.
struct JpegDecoder::Worker {
    explicit Worker(const JpegDecoder& decoder) : state(decoder.nvjpeg_.state(decoder.kernels_.get())) {}

    DeviceStream stream;
    NvjpegLibrary::Owned<NvjpegLibrary::State> state;
};

// A worker for as long as a thread has work, which it would otherwise make anew for each batch.
class JpegDecoder::Lease {
public:
    explicit Lease(JpegDecoder& decoder) : decoder_(decoder) {
        check_cuda(cudaSetDevice(decoder.device_));  // each thread begins with the first one
        {
            const std::lock_guard<std::mutex> lock(decoder.mutex_);
            if (!decoder.idle_.empty()) {
                worker_ = std::move(decoder.idle_.back());
                decoder.idle_.pop_back();
            }
        }
        if (!worker_) worker_ = std::make_unique<Worker>(decoder);
    }
    ~Lease() {
        const std::lock_guard<std::mutex> lock(decoder_.mutex_);
        decoder_.idle_.push_back(std::move(worker_));
    }

    Worker& worker() { return *worker_; }

private:
    JpegDecoder& decoder_;
    std::unique_ptr<Worker> worker_;
};

JpegDecoder::JpegDecoder(const NvjpegLibrary& library)
    : nvjpeg_(library),
      kernels_(library.handle(NvjpegLibrary::BACKEND_DEFAULT, FLAGS, status_)),
      engine_(nullptr, library.destroy),
      engine_state_(nullptr, library.destroy_state),
      engine_header_(nullptr, library.destroy_stream) {
    check_cuda(cudaGetDevice(&device_));
    NvjpegLibrary::check(status_);
    // Where the chip has no engine this fails, and where it may not be used.
    engine_ = library.handle(NvjpegLibrary::BACKEND_HARDWARE, FLAGS, status_);
    if (!engine_) return;
    engine_state_ = library.state(engine_.get());
    engine_header_ = library.stream(engine_.get());
}

JpegDecoder::~JpegDecoder() = default;

void JpegDecoder::decode(std::vector<JpegTask>& tasks, int threads) {
    std::vector<JpegTask*> engine, kernels;
    for (JpegTask& task : tasks) (engine_takes(task) ? engine : kernels).push_back(&task);
    for (JpegTask* undone : decode_on_engine(engine)) kernels.push_back(undone);
    decode_by_kernels(kernels, threads);
}

bool JpegDecoder::engine_takes(const JpegTask& task) const {
    int unsupported = 1;
    return engine_ && !nvjpeg_.parse_header(engine_.get(), task.data, task.size, engine_header_.get()) &&
           !nvjpeg_.batch_supports(engine_.get(), engine_header_.get(), &unsupported) && !unsupported;
}

std::vector<JpegTask*> JpegDecoder::decode_on_engine(const std::vector<JpegTask*>& tasks) {
    if (tasks.empty()) return {};
    const auto count = static_cast<std::int64_t>(tasks.size());
    std::vector<const unsigned char*> data;
    std::vector<std::size_t> sizes;
    std::vector<NvjpegLibrary::Image> images;
    const std::int64_t table_bytes = count * std::int64_t{sizeof(MarkedMemory)};
    std::uint8_t* tables = tables_.reserve(table_bytes + count);
    auto* memories = reinterpret_cast<MarkedMemory*>(tables);
    std::uint8_t* left = tables + table_bytes;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        data.push_back(tasks[i]->data);
        sizes.push_back(tasks[i]->size);
        images.push_back(image_of(*tasks[i]));
        memories[i] = {tasks[i]->pixels, 3 * tasks[i]->width * tasks[i]->height};
    }
    auto* marked = marked_.reserve_of<MarkedMemory>(count);
    std::uint8_t* found = found_.reserve(count);
    check_cuda(cudaMemcpyAsync(marked, memories, static_cast<std::size_t>(table_bytes),
                               cudaMemcpyHostToDevice, stream_.get()));
    set_marks(marked, count, stream_.number());
    stream_.wait();  // the engine would not
    NvjpegLibrary::Status status =
        nvjpeg_.begin_batch(engine_.get(), engine_state_.get(), static_cast<int>(count), 1,
                            NvjpegLibrary::OUTPUT_RGB_INTERLEAVED);
    if (!status)
        status = nvjpeg_.decode_batch(engine_.get(), engine_state_.get(), data.data(), sizes.data(),
                                      images.data(), stream_.get());
    find_marks(marked, count, found, stream_.number());
    check_cuda(
        cudaMemcpyAsync(left, found, static_cast<std::size_t>(count), cudaMemcpyDeviceToHost, stream_.get()));
    stream_.wait();
    std::vector<JpegTask*> undone;
    // A batch that fails does not say by which image: halves of halves do.
    if (status && tasks.size() > 1) {
        const auto middle = tasks.begin() + static_cast<std::ptrdiff_t>(tasks.size() / 2);
        undone = decode_on_engine({tasks.begin(), middle});
        for (JpegTask* task : decode_on_engine({middle, tasks.end()})) undone.push_back(task);
        return undone;
    }
    for (std::size_t i = 0; i < tasks.size(); ++i)
        if (status || left[i]) undone.push_back(tasks[i]);
    return undone;
}

void JpegDecoder::decode_by_kernels(const std::vector<JpegTask*>& tasks, int threads) {
    share_out<Lease>(
        static_cast<std::int64_t>(tasks.size()), threads, [&](std::unique_ptr<Lease>& lease, std::int64_t i) {
            JpegTask& task = *tasks[static_cast<std::size_t>(i)];
            try {
                if (!lease) lease = std::make_unique<Lease>(*this);
                Worker& worker = lease->worker();
                NvjpegLibrary::Image image = image_of(task);
                NvjpegLibrary::check(nvjpeg_.decode(kernels_.get(), worker.state.get(), task.data, task.size,
                                                    NvjpegLibrary::OUTPUT_RGB_INTERLEAVED, &image,
                                                    worker.stream.get()));
                worker.stream.wait();
            } catch (const std::exception& error) {
                task.failure = error.what();
            }
        });
}

}  // namespace imagen_fast
