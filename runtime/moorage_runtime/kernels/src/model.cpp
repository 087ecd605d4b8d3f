#include "model.h"

namespace moorage {
namespace {

struct Size {
    int n, k;
};

Size layer_size(const Shape& shape, int slot) {
    const int q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
    const Size sizes[kLayerMatrices] = {{q, shape.hidden},
                                        {kv, shape.hidden},
                                        {kv, shape.hidden},
                                        {shape.hidden, q},
                                        {shape.intermediate, shape.hidden},
                                        {shape.intermediate, shape.hidden},
                                        {shape.hidden, shape.intermediate}};
    return sizes[slot];
}

Size size_of(const Shape& shape, int layer, int slot) {
    return layer < 0 ? Size{shape.vocab, shape.hidden} : layer_size(shape, slot);
}

size_t bytes_of(const Layer& layer) {
    size_t total = 0;
    for (const Linear& linear : layer.linear) {
        if (linear.matrix != nullptr) total += matrix_bytes(*linear.matrix);
        total += linear.bias.size() * sizeof(float);
    }
    for (const std::vector<float>& vector : layer.vector) total += vector.size() * sizeof(float);
    return total;
}

}  // namespace

Model::Model(const Shape& shape, const float* frequencies)
    : shape(shape),
      inverse_frequencies(frequencies, frequencies + shape.head_dim / 2),
      layers_(static_cast<size_t>(shape.layers)) {}

Layer* Model::at(int layer) {
    if (layer < 0) return &global_;
    return layer < shape.layers ? &layers_[static_cast<size_t>(layer)] : nullptr;
}

bool Model::refuse(const char* problem) {
    problem_ = problem;
    return false;
}

bool Model::set_matrix(int layer, int slot, Format format, int n, int k, const void* rows) {
    Layer* owner = at(layer);
    if (owner == nullptr || slot < 0 || slot >= (layer < 0 ? +kModelMatrices : +kLayerMatrices))
        return refuse("there is no such matrix");
    const Size size = size_of(shape, layer, slot);
    if (n != size.n || k != size.k) return refuse("the matrix is not of the size that the model's shape tells");
    Matrix* matrix = matrix_pack(format, n, k, rows);
    if (matrix == nullptr) return refuse("no room for the matrix, or rows of this length do not fit the format's blocks");
    owner->linear[slot].matrix.reset(matrix);
    return true;
}

bool Model::set_bias(int layer, int slot, int n, const float* values) {
    Layer* owner = at(layer);
    if (owner == nullptr || layer < 0 || slot < 0 || slot >= kLayerMatrices) return refuse("there is no such bias");
    if (n != layer_size(shape, slot).n) return refuse("the bias is not of the size that the model's shape tells");
    owner->linear[slot].bias.assign(values, values + n);
    return true;
}

bool Model::set_vector(int layer, int slot, int n, const float* values) {
    Layer* owner = at(layer);
    if (owner == nullptr || slot < 0 || slot >= (layer < 0 ? +kModelVectors : +kLayerVectors))
        return refuse("there is no such vector");
    const bool of_head = layer >= 0 && (slot == kQueryNorm || slot == kKeyNorm);
    if (n != (of_head ? shape.head_dim : shape.hidden))
        return refuse("the vector is not of the size that the model's shape tells");
    owner->vector[slot].assign(values, values + n);
    owner->vector[slot].resize(static_cast<size_t>(padded(n)), 0.0f);
    return true;
}

bool Model::complete() {
    if (global_.linear[kEmbedding].matrix == nullptr || final_norm().empty())
        return refuse("the embedding or the last norm is missing");
    for (const Layer& layer : layers_) {
        for (const Linear& linear : layer.linear)
            if (linear.matrix == nullptr) return refuse("a matrix of a layer is missing");
        if (layer.vector[kAttentionNorm].empty() || layer.vector[kMlpNorm].empty())
            return refuse("a norm of a layer is missing");
    }
    return true;
}

size_t Model::bytes() const {
    size_t total = bytes_of(global_);
    for (const Layer& layer : layers_) total += bytes_of(layer);
    return total;
}

}  // namespace moorage
