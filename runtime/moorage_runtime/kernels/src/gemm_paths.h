// One table of products per instruction set; gemm.cpp picks. Private to the products.
#pragma once

#include "gemm.h"
#include "matrix.h"

namespace moorage {

// out[row_begin:row_end, strips] = [out +] operand W^T [+ bias]
struct Product {
    const Matrix& matrix;
    const uint8_t* operand;
    int rows, row_begin, row_end;
    int strip_begin, strip_end;
    float* out;
    size_t ldo;
    const float* bias;
    bool add;
};

using Multiply = void (*)(const Product& product);

struct Path {
    const char* name;
    Multiply f32, f16, bf16, quantised;
};

extern const Path kScalarPath;
extern const Path kAvx512Path;
extern const Path kAmxPath;

}  // namespace moorage
