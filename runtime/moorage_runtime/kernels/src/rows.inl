// Norm, activation and maximum of single rows. Included once per instruction set, after simd.h.
#pragma once

#include "attention.inl"

namespace {

bool rms_norm(const float* x, const float* weight, int n, int padded, float eps, float* out) {
    F16 squares = zero();
    for (int i = 0; i < padded; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
    const float mean = sum(squares) / static_cast<float>(n);
    const F16 scale = all(1.0f / __builtin_sqrtf(mean + eps));
    for (int i = 0; i < padded; i += kLanes) store(out + i, mul(mul(load(x + i), scale), load(weight + i)));
    return mean < __builtin_inff();
}

void silu_times(const float* gate, const float* up, int padded, float* out) {
    const F16 one = all(1.0f), factor = all(-kLog2e);
    for (int i = 0; i < padded; i += kLanes) {
        const F16 g = load(gate + i);
        const F16 silu = div(g, add(one, exp2(mul(g, factor))));
        store(out + i, mul(silu, load(up + i)));
    }
}

float highest(const float* values, int n) {
    const int whole = n / kLanes * kLanes;
    F16 top = all(-__builtin_inff());
    for (int i = 0; i < whole; i += kLanes) top = max(top, load(values + i));
    float result = maximum(top);
    for (int i = whole; i < n; ++i) result = values[i] > result ? values[i] : result;
    return result;
}

template <class Cache>
constexpr Ops ops_named(const char* name) {
    return {name, rms_norm, silu_times, highest, write<Cache>, attend<Cache>};
}

}  // namespace
