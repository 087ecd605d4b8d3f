// One table of products per instruction set; gemm.cpp picks. Private to the products.
#pragma once

#include "gemm.h"
#include "matrix.h"
#include "operand.h"

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

using PrepareRow = void (*)(const float* x, int k, RowBlock<uint8_t> block, int row);

struct RowPreparations {
    PrepareRow f32, bf16, i8;
};

struct Path {
    const char* name;
    Multiply f32, f16, bf16, quantised;
    const RowPreparations& rows;
};

extern const RowPreparations kScalarRows, kAvx2Rows, kAvx512Rows;
extern const Path kScalarPath, kAvx2Path, kAvxVnniPath, kAvx512Path, kAmxPath, kNeonPath;

// The one that products take.
const Path& chosen_path();

}  // namespace moorage
