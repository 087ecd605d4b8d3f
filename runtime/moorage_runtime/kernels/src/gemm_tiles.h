// AMX's eight tile registers: up to 16 rows of 64 bytes each. Register numbers are template arguments, because the
// compiler's own intrinsics take them only as literals. Private to the AMX products.
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, "Programming with Intel AMX".
#pragma once

#include <cstddef>
#include <cstdint>

namespace moorage {

namespace {

struct alignas(64) TileShapes {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

inline void tiles_configure(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }

// Without live tiles the operating system has 8 KiB less to save at a switch of threads.
inline void tiles_release() { asm volatile("tilerelease"); }

template <int tile>
void tile_zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}

template <int tile>
void tile_load(const void* from, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
void tile_store(void* to, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
}

// sums += a b, signed bytes by fours.
template <int sums, int a, int b>
void tile_multiply_i8(void) {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
}

// sums += a b, bfloat16 by pairs.
template <int sums, int a, int b>
void tile_multiply_bf16(void) {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
}

}  // namespace

}  // namespace moorage
