// The kinds of quantisation as compile-time constants: one product is compiled for each. Private to the products.
#pragma once

#include "matrix.h"

namespace moorage {

namespace {

constexpr bool operator==(const Quantisation& a, const Quantisation& b) {
    return a.bits == b.bits && a.group == b.group && a.zero == b.zero && a.minimum == b.minimum &&
           a.two_level == b.two_level;
}

// Calls f.template operator()<kind>() with the matrix's kind. Kinds are those of matrix_blocks.cpp's table.
template <Quantisation kind, Quantisation... others, typename F>
void for_one_of(const Quantisation& wanted, F f) {
    if (wanted == kind) return f.template operator()<kind>();
    if constexpr (sizeof...(others) > 0) for_one_of<others...>(wanted, f);
}

template <typename F>
void for_kind(const Quantisation& wanted, F f) {
    for_one_of<Quantisation{4, 32, 8, false, false},  // Q4_0
               Quantisation{4, 32, 0, true, false},   // Q4_1
               Quantisation{8, 32, 0, false, false},  // Q5_0, Q8_0
               Quantisation{8, 32, 0, true, false},   // Q5_1
               Quantisation{4, 16, 0, true, true},    // Q2_K
               Quantisation{4, 16, 4, false, true},   // Q3_K
               Quantisation{4, 32, 0, true, true},    // Q4_K
               Quantisation{8, 32, 0, true, true},    // Q5_K
               Quantisation{8, 16, 0, false, true}>(  // Q6_K
        wanted, f);
}

}  // namespace

}  // namespace moorage
