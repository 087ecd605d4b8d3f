#include "gemm.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "gemm_paths.h"
#include "isa.h"

namespace moorage {

namespace {

struct Level {
    const char* name;
    bool (*available)();
    const Path* path;
};

// Best first.
const Level kLevels[] = {
#if defined(__x86_64__)
    {"amx", [] { return features().amx; }, &kAmxPath},
    {"avx512", [] { return features().avx512; }, &kAvx512Path},
    {"avxvnni", [] { return features().avx_vnni; }, &kAvxVnniPath},
    {"avx2", [] { return features().avx2; }, &kAvx2Path},
#elif defined(__aarch64__)
    {"neon", [] { return features().neon; }, &kNeonPath},
#endif
    {"scalar", [] { return true; }, &kScalarPath},
};

// The best available path from the named level down; nullptr: no such name.
const Path* best_path(const char* name) {
    bool allowed = name == nullptr;
    for (const Level& level : kLevels) {
        allowed = allowed || std::strcmp(level.name, name) == 0;
        if (allowed && level.available()) return level.path;
    }
    return nullptr;
}

const Path* first_path() {
    const Path* named = best_path(std::getenv("MOORAGE_KERNELS"));
    return named != nullptr ? named : best_path(nullptr);
}

std::atomic<const Path*>& chosen() {
    static std::atomic<const Path*> path = first_path();
    return path;
}

}  // namespace

const Path& chosen_path() { return *chosen().load(std::memory_order_relaxed); }

bool kernels_select(const char* name) {
    const Path* named = best_path(name);
    if (named != nullptr) chosen().store(named);
    return named != nullptr;
}

const char* kernels_path() { return chosen_path().name; }

void matrix_multiply(const Matrix& matrix, const void* operand, int rows, int row_begin, int row_end, int tile,
                     float* out, size_t ldo, const float* bias, bool add) {
    const int first = tile * matrix.tile_strips;
    const Product product = {matrix,
                             static_cast<const uint8_t*>(operand),
                             rows,
                             row_begin,
                             row_end,
                             first,
                             std::min(first + matrix.tile_strips, matrix.strips),
                             out,
                             ldo,
                             bias,
                             add};
    switch (matrix.layout) {
        case Layout::F32: return chosen_path().f32(product);
        case Layout::F16: return chosen_path().f16(product);
        case Layout::BF16: return chosen_path().bf16(product);
        case Layout::Quantised: return chosen_path().quantised(product);
    }
}

}  // namespace moorage
