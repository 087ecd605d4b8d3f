// Layout of packed matrices, the same on every machine. Private to the products.
//
// Outputs are interleaved by 16 ("strip"), so that a vector lane is an output and no sum runs across lanes:
//
//     F32, F16   strip = [k][16 outputs]
//     BF16       strip = [k / 32][16 pairs][16 outputs][2], k padded with zeros: a block of 1 KiB is a tile of TDPBF16PS
//     4-bit      codes = [k / 8][16 outputs][4 bytes]; byte i holds input i of the 8 in its low half, i + 4 in its high half
//     8-bit      codes = [k / 4][16 outputs][4 bytes], signed
//
// A quantised weight is scale * (code - zero) + minimum, with one scale (and minimum) per output and group of 16 or 32
// inputs. They follow the strip's codes, 16 outputs side by side, either as halves or on two levels as in the K-quants: a
// signed byte per group, times a half per 256 inputs. Every scale is exact in fp32.
#pragma once

#include "gemm.h"

namespace moorage {

constexpr int kStrip = 16;
constexpr int kSuper = 256;  // inputs under one upper scale of a K-quant

enum class Layout : int32_t { F32, F16, BF16, Quantised };

struct Quantisation {
    int bits;        // 4 or 8
    int group;       // 32 or 16
    int zero;        // what a code of weight 0 is: 0, 4 or 8; 8-bit codes are signed and have none
    bool minimum;    // whether a minimum is added
    bool two_level;  // bytes times halves instead of halves
};

struct Matrix {
    Format format;
    Layout layout;
    Quantisation quantisation;
    int n, k;
    int strips, tile_strips;
    size_t strip_bytes;
    size_t scales, minimums;              // offsets in a strip: per group
    size_t upper_scales, upper_minimums;  // offsets in a strip: per 256 inputs, only on two levels
    size_t allocated;
    uint8_t* data;
};

}  // namespace moorage
