// What training on a CPU computes besides matrix products, as training.py calls it.

#include "between.h"
#include "coded.h"
#include "documents.h"

#define FOR(NAME, T)                                                                                                                      \
    void dialoop_attend_##NAME(const Documents* in, const Heads<T>* q, const Heads<T>* k, const Heads<T>* v, const Heads<T>* out,         \
                               float* logs, int threads) {                                                                                \
        attend(*in, *q, *k, *v, *out, logs, threads);                                                                                     \
    }                                                                                                                                     \
    void dialoop_attend_back_##NAME(const Documents* in, const Heads<T>* grad, const Heads<T>* q, const Heads<T>* k, const Heads<T>* v,   \
                                    const Heads<T>* out, const float* logs, const Heads<T>* dq, const Heads<T>* dk, const Heads<T>* dv,   \
                                    int threads) {                                                                                        \
        attend_back(*in, *grad, *q, *k, *v, *out, logs, *dq, *dk, *dv, threads);                                                          \
    }                                                                                                                                     \
    void dialoop_norm_##NAME(const T* x, const T* weight, double eps, int64_t rows, int64_t size, T* y, float* squares, int threads) {    \
        norm(x, weight, eps, rows, size, y, squares, threads);                                                                            \
    }                                                                                                                                     \
    void dialoop_norm_back_##NAME(const T* grad, const T* x, const T* weight, const float* squares, double eps, const T* past,            \
                                  int64_t rows, int64_t size, T* dx, float* dweight, int threads) {                                       \
        norm_back(grad, x, weight, squares, eps, past, rows, size, dx, dweight, threads);                                                 \
    }                                                                                                                                     \
    void dialoop_turn_##NAME(const Heads<T>* x, const T* cos, const T* sin, int64_t tokens, int64_t heads, int64_t size, double sign,     \
                             int threads) {                                                                                               \
        turn(x->at, x->pitch, cos, sin, tokens, heads, size, sign, threads);                                                              \
    }                                                                                                                                     \
    void dialoop_gated_##NAME(const T* both, int64_t rows, int64_t inner, T* y, int threads) { gated(both, rows, inner, y, threads); }    \
    void dialoop_gated_back_##NAME(const T* grad, const T* both, int64_t rows, int64_t inner, T* dboth, int threads) {                    \
        gated_back(grad, both, rows, inner, dboth, threads);                                                                              \
    }

extern "C" {

int64_t dialoop_lanes() { return LANES; }

int64_t dialoop_has_bytes() { return HAS_BYTES; }

#if HAS_BYTES
void dialoop_multiply(const Coded* m, const float* x, int64_t x_pitch, int64_t count, int back, float* y, int64_t y_pitch, int threads) {
    multiply(*m, x, x_pitch, count, back, y, y_pitch, threads);
}
#endif

FOR(float32, float)
FOR(bfloat16, Brain)
}
