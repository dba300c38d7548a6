// Work shared out among threads, and their memory.

#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace {

// Does piece 0 .. pieces - 1, whoever of the threads is free.
template <class Work>
void share(long pieces, int threads, Work work) {
    if (threads < 2 || pieces < 2) {
        for (long i = 0; i < pieces; i++) work(i);
        return;
    }
    const long together = std::max(1L, pieces / (16 * threads));
#pragma omp parallel for num_threads(threads) schedule(dynamic, together)
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
