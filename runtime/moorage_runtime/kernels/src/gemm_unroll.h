// Loops that are unrolled before anything else, so that arrays indexed by them live in registers. Private to the
// products.
#pragma once

#include <type_traits>
#include <utility>

#define MOORAGE_INLINE inline __attribute__((always_inline))

namespace moorage {

namespace {

template <int... is, typename F>
MOORAGE_INLINE void unrolled(std::integer_sequence<int, is...>, F f) {
    (f(std::integral_constant<int, is>{}), ...);
}

// f(0), f(1), ..., f(count - 1), of integral constants
template <int count, typename F>
MOORAGE_INLINE void unrolled(F f) {
    unrolled(std::make_integer_sequence<int, count>{}, f);
}

}  // namespace

}  // namespace moorage

// The body of an unrolled loop.
#define MOORAGE_EACH(i) [&](int i) __attribute__((always_inline))
