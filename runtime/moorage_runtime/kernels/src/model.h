// A decoder of the Llama family: shape and packed weights.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gemm.h"

namespace moorage {

// As moorage_runtime.kernels.library has it.
struct Shape {
    int32_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
    float eps;
};

// Matrices of a layer, then those of the model.
enum MatrixSlot { kQ, kK, kV, kOutput, kGate, kUp, kDown, kLayerMatrices, kEmbedding = 0, kHead, kModelMatrices };
enum VectorSlot { kAttentionNorm, kMlpNorm, kQueryNorm, kKeyNorm, kLayerVectors, kFinalNorm = 0, kModelVectors };

struct FreeMatrix {
    void operator()(Matrix* matrix) const { matrix_free(matrix); }
};

// A product's constants. Tables are padded with zeros to whole vectors.
struct Linear {
    std::unique_ptr<Matrix, FreeMatrix> matrix;
    std::vector<float> bias;

    const float* bias_or_null() const { return bias.empty() ? nullptr : bias.data(); }
};

struct Layer {
    Linear linear[kLayerMatrices];
    std::vector<float> vector[kLayerVectors];
};

class Model {
   public:
    Model(const Shape& shape, const float* inverse_frequencies);

    // `layer` is -1 for what belongs to the model. False, with `problem()`: it cannot be packed, or its size is wrong.
    bool set_matrix(int layer, int slot, Format format, int n, int k, const void* rows);
    bool set_bias(int layer, int slot, int n, const float* values);
    bool set_vector(int layer, int slot, int n, const float* values);
    // Whether nothing is missing.
    bool complete();
    const char* problem() const { return problem_; }
    size_t bytes() const;

    const Linear& head() const { return tied() ? global_.linear[kEmbedding] : global_.linear[kHead]; }
    const Linear& embedding() const { return global_.linear[kEmbedding]; }
    const std::vector<float>& final_norm() const { return global_.vector[kFinalNorm]; }
    const Layer& layer(int index) const { return layers_[static_cast<size_t>(index)]; }

    const Shape shape;
    const std::vector<float> inverse_frequencies;

   private:
    bool tied() const { return global_.linear[kHead].matrix == nullptr; }
    Layer* at(int layer);
    bool refuse(const char* problem);

    Layer global_;
    std::vector<Layer> layers_;
    const char* problem_ = "";
};

inline int padded(int n) { return (n + 15) / 16 * 16; }

}  // namespace moorage
