// Work shared out among threads, and their memory.
//
// A team of our own, since a step is some hundred short pieces of work: a team of OpenMP is done when each of its
// threads has come to the end, and waits for whoever has lost its processor to another process. This one is done when
// the work is: who does not come is not missed.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace {

// The n-th time that there is nothing to do yet: at first it will not be long, then somebody may need the processor.
inline void breathe(long n) {
    if (n >= 500) return std::this_thread::yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class Team {
  public:
    using Piece = void (*)(const void* work, long piece);

    // Whether it has done pieces 0 .. pieces - 1; not where another thread of the process is at it.
    bool does(Piece piece, const void* work, long pieces, int threads) {
        std::unique_lock<std::mutex> only(busy_, std::try_to_lock);
        if (!only) return false;
        while ((int)members_ < threads - 1) {
            members_++;
            std::thread([this] { serve(); }).detach();
        }
        piece_ = piece;
        work_ = work;
        pieces_ = pieces;
        together_ = std::max(1L, pieces / (16 * threads));
        done_ = 0;
        turn_ += TURN;
        next_ = turn_;  // the work is open
        if (asleep_) {
            { std::lock_guard<std::mutex> lock(rest_); }
            wake_.notify_all();
        }
        while (take()) {}
        for (long i = 0; done_ < pieces; i++) breathe(i);
        next_ = turn_ + CLOSED;
        return true;
    }

  private:
    // `next_` is the number of the turn and the next piece of its work. A piece is taken by moving `next_` on; that fails
    // where the turn has changed since the work was looked at, so that nobody takes a piece of another's.
    static constexpr uint64_t TURN = 1ull << 32, CLOSED = TURN - 1;
    static constexpr long PATIENCE = 8000;  // some milliseconds, and then it sleeps

    bool take() {
        uint64_t at = next_;
        const long first = (long)(at & CLOSED), pieces = pieces_, together = together_;
        const Piece piece = piece_;
        const void* work = work_;
        if (first >= pieces || (at & CLOSED) == CLOSED) return false;
        const long last = std::min(pieces, first + together);
        if (next_.compare_exchange_strong(at, at + (uint64_t)(last - first))) {
            for (long i = first; i < last; i++) piece(work, i);
            done_ += last - first;
        }
        return true;
    }

    void serve() {
        for (long i = 0;;) {
            if (take()) {
                i = 0;
            } else if (i++ < PATIENCE) {
                breathe(i);
            } else {
                std::unique_lock<std::mutex> lock(rest_);
                asleep_++;
                const uint64_t seen = next_;
                if ((seen & CLOSED) == CLOSED) wake_.wait(lock, [&] { return next_ != seen; });
                asleep_--;
                i = 0;
            }
        }
    }

    std::mutex busy_, rest_;
    std::condition_variable wake_;
    size_t members_ = 0;
    uint64_t turn_ = 0;
    alignas(64) std::atomic<uint64_t> next_{CLOSED};
    alignas(64) std::atomic<long> done_{0};
    alignas(64) std::atomic<long> pieces_{0}, together_{1};
    std::atomic<int> asleep_{0};
    std::atomic<Piece> piece_{nullptr};
    std::atomic<const void*> work_{nullptr};
};

inline Team& team() {
    static Team* made = new Team;  // its threads live as long as the process
    return *made;
}

// Does piece 0 .. pieces - 1, whoever of the threads is free. Compiled for OpenMP by its team, whose threads are awake
// between torch's products.
template <class Work>
void share(long pieces, int threads, Work work) {
#if defined(_OPENMP)
    const long together = std::max(1L, pieces / (16 * threads));
#pragma omp parallel for num_threads(threads) schedule(dynamic, together) if (pieces > 1)
    for (long i = 0; i < pieces; i++) work(i);
    return;
#endif
    const auto piece = [](const void* all, long i) { (*(const Work*)all)(i); };
    if (threads > 1 && pieces > 1 && team().does(piece, &work, pieces, threads)) return;
    for (long i = 0; i < pieces; i++) work(i);
}

// Rows are shared out where there are enough of them to be worth it.
template <class Work>
void each_row(long rows, int threads, Work work) {
    share(rows, rows < 4 ? 1 : threads, work);
}

// One of four pieces of memory of the calling thread, as large as was ever wanted.
float* scratch(int which, size_t numbers) {
    thread_local std::vector<float> held[4];
    if (held[which].size() < numbers) held[which].resize(numbers);
    return held[which].data();
}

}  // namespace
