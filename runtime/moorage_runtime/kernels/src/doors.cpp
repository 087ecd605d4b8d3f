// Models and sessions as C functions, called by moorage_runtime.kernels.library. No exception leaves here: what fails
// returns nullptr or a text that says why.
#include <exception>
#include <string>

#include "session.h"

#define MOORAGE_DOOR extern "C" __attribute__((visibility("default")))

using namespace moorage;

namespace {

thread_local std::string last_problem;

template <class Make>
auto guarded(const Make& make) -> decltype(make()) {
    try {
        return make();
    } catch (const std::exception& error) {  // no memory, no threads
        last_problem = error.what();
        return nullptr;
    }
}

const char* told(bool done, const Model* model) { return done ? nullptr : model->problem(); }

}  // namespace

// Why the last function that returned nullptr in place of a new object did so, on the calling thread.
MOORAGE_DOOR const char* moorage_problem() { return last_problem.c_str(); }

MOORAGE_DOOR Model* moorage_model_new(const Shape* shape, const float* inverse_frequencies) {
    return guarded([&] { return new Model(*shape, inverse_frequencies); });
}

MOORAGE_DOOR void moorage_model_free(Model* model) { delete model; }

// These return nullptr when all is well, else why not.
MOORAGE_DOOR const char* moorage_model_matrix(Model* model, int32_t layer, int32_t slot, int32_t format, int32_t n,
                                              int32_t k, const void* rows) {
    return told(model->set_matrix(layer, slot, static_cast<Format>(format), n, k, rows), model);
}

MOORAGE_DOOR const char* moorage_model_bias(Model* model, int32_t layer, int32_t slot, int32_t n, const float* values) {
    return told(model->set_bias(layer, slot, n, values), model);
}

MOORAGE_DOOR const char* moorage_model_vector(Model* model, int32_t layer, int32_t slot, int32_t n,
                                              const float* values) {
    return told(model->set_vector(layer, slot, n, values), model);
}

MOORAGE_DOOR const char* moorage_model_complete(Model* model) { return told(model->complete(), model); }

MOORAGE_DOOR uint64_t moorage_model_bytes(const Model* model) { return model->bytes(); }

MOORAGE_DOOR Group* moorage_group_new(const GroupOptions* options) {
    return guarded([&] { return Group::make(*options).release(); });
}

MOORAGE_DOOR void moorage_group_free(Group* group) { delete group; }

// The model must be complete; it and the group outlive the session.
MOORAGE_DOOR Session* moorage_session_new(const Model* model, const SessionOptions* options) {
    return guarded([&] { return new Session(*model, *options); });
}

MOORAGE_DOOR void moorage_session_free(Session* session) { delete session; }

MOORAGE_DOOR const float* moorage_session_logits(const Session* session) { return session->logits(); }

MOORAGE_DOOR const char* moorage_session_ops(const Session* session) { return session->ops_name(); }

MOORAGE_DOOR void moorage_session_counters(const Session* session, Counters* out) { *out = session->counters(); }

MOORAGE_DOOR const char* moorage_session_step(Session* session, const StepInput* input) {
    return session->step(*input);
}
