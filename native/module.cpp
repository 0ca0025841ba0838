// Python bindings: converts, keeps arrays alive, releases the GIL; no logic.
#include "interventions.hpp"
#include "llama_api.hpp"
#include "mixing.hpp"
#include "nearest_keys.hpp"
#include "residual_hooks.hpp"
#include "runs.hpp"
#include "token_scores.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename T, size_t Axes>
using Array = nb::ndarray<T, nb::numpy, nb::ndim<Axes>, nb::c_contig, nb::device::cpu>;

template <typename AnyArray> auto span_of(const AnyArray &array) { return std::span(array.data(), array.size()); }

void require_same_length(size_t expected, size_t actual, const char *what) {
    if (expected != actual) {
        throw std::invalid_argument(std::string(what) + ": expected " + std::to_string(expected) + " elements, got " +
                                    std::to_string(actual));
    }
}

steerx::LayerVectors layer_vectors(const std::vector<int32_t> &layers, const Array<const float, 2> &values) {
    require_same_length(layers.size(), values.shape(0), "vectors, layer axis");
    if (!std::is_sorted(layers.begin(), layers.end(), std::less_equal<>())) {
        throw std::invalid_argument("layers must strictly increase");
    }
    return {layers, {values.data(), values.data() + values.size()}, static_cast<int32_t>(values.shape(1))};
}

struct ReadRequest {
    std::string hook_point;
    std::vector<int32_t> layers;
    Array<const int32_t, 1> rows;
    Array<const int32_t, 1> slots;
    Array<const float, 1> weights;
    Array<float, 3> values;
};

struct WriteRequest {
    steerx::InterventionPtr intervention;
    std::vector<int32_t> layers;
    std::vector<int32_t> rows;
};

// The hook plus the arrays it writes to, which must outlive the pass.
struct BoundHooks {
    steerx::ResidualHooks hooks;
    int32_t n_embd;
    std::vector<Array<float, 3>> kept;

    BoundHooks(const steerx::LlamaApi &api, int32_t n_layer, int32_t width)
        : hooks(api, n_layer, width), n_embd(width) {}

    void arm(const Array<const int32_t, 1> &tokens, const Array<const int32_t, 1> &output_row,
             const std::vector<WriteRequest> &writes, const std::vector<ReadRequest> &reads,
             bool stop_after_last_layer) {
        steerx::PassPlan plan;
        plan.tokens.assign(tokens.data(), tokens.data() + tokens.size());
        plan.output_row.assign(output_row.data(), output_row.data() + output_row.size());
        plan.stop_after_last_layer = stop_after_last_layer;
        for (const WriteRequest &write : writes) {
            plan.writings.push_back({write.intervention, write.layers, write.rows});
        }
        std::vector<Array<float, 3>> arrays;
        for (const ReadRequest &read : reads) {
            plan.readings.push_back(reading(read));
            arrays.push_back(read.values);
        }
        hooks.arm(std::move(plan));
        kept = std::move(arrays);
    }

    steerx::Reading reading(const ReadRequest &read) const {
        require_same_length(read.rows.size(), read.slots.size(), "slots");
        require_same_length(read.rows.size(), read.weights.size(), "weights");
        require_same_length(read.layers.size(), read.values.shape(0), "values, layer axis");
        require_same_length(static_cast<size_t>(n_embd), read.values.shape(2), "values, n_embd axis");
        steerx::Reading reading{read.hook_point, read.layers, {}, span_of(read.values)};
        for (size_t i = 0; i < read.rows.size(); ++i) {
            reading.picks.push_back({read.rows.data()[i], read.slots.data()[i], read.weights.data()[i]});
        }
        return reading;
    }

    void finish() {
        const std::vector<Array<float, 3>> until_done = std::move(kept);
        kept.clear();
        hooks.finish();
    }

    void cancel() {
        hooks.cancel();
        kept.clear();
    }
};

void score_tokens(const steerx::LlamaApi &api, uintptr_t context, int32_t n_vocab,
                  const Array<const int32_t, 1> &batch_index, const Array<const int32_t, 1> &target, int32_t n_threads,
                  const Array<float, 1> &log_prob, const std::optional<Array<float, 1>> &entropy,
                  const std::optional<Array<int32_t, 2>> &top_token, const std::optional<Array<float, 2>> &top_log_prob,
                  const std::optional<Array<double, 1>> &expected,
                  const std::optional<Array<const float, 2>> &bias_factors,
                  const std::optional<Array<float, 2>> &biased) {
    const size_t n_rows = batch_index.size();
    require_same_length(n_rows, target.size(), "target");
    require_same_length(n_rows, log_prob.size(), "log_prob");
    steerx::TokenScores out;
    out.log_prob = span_of(log_prob);
    if (entropy) {
        require_same_length(n_rows, entropy->size(), "entropy");
        out.entropy = span_of(*entropy);
    }
    if (top_token && top_log_prob) {
        const size_t top_k = top_token->shape(1);
        if (top_k > static_cast<size_t>(n_vocab)) {
            throw std::invalid_argument("top_k is larger than the vocabulary");
        }
        require_same_length(n_rows * top_k, top_token->size(), "top_token");
        require_same_length(n_rows * top_k, top_log_prob->size(), "top_log_prob");
        out.top_k = static_cast<int32_t>(top_k);
        out.top_token = span_of(*top_token);
        out.top_log_prob = span_of(*top_log_prob);
    }
    if (expected) {
        require_same_length(static_cast<size_t>(n_vocab), expected->size(), "expected");
        out.expected = span_of(*expected);
    }
    if (bias_factors && biased) {
        require_same_length(static_cast<size_t>(n_vocab), bias_factors->shape(1), "bias_factors, n_vocab axis");
        require_same_length(bias_factors->shape(0) * n_rows, biased->size(), "biased");
        out.bias_factors = span_of(*bias_factors);
        out.biased = span_of(*biased);
    }
    const nb::gil_scoped_release no_gil;
    steerx::score_tokens(api, reinterpret_cast<llama_context *>(context), n_vocab, span_of(batch_index),
                         span_of(target), n_threads, out);
}

void nearest_keys(const Array<const int8_t, 2> &keys, const Array<const float, 1> &scales,
                  const Array<const float, 2> &queries, const Array<int64_t, 2> &places,
                  const Array<float, 2> &similarities) {
    const size_t n_keys = keys.shape(0);
    const size_t n_queries = queries.shape(0);
    const size_t k = places.shape(1);
    require_same_length(n_keys, scales.size(), "scales");
    require_same_length(keys.shape(1), queries.shape(1), "queries, d axis");
    require_same_length(n_queries, places.shape(0), "places, query axis");
    require_same_length(n_queries, similarities.shape(0), "similarities, query axis");
    require_same_length(k, similarities.shape(1), "similarities, k axis");
    if (k > n_keys) {
        throw std::invalid_argument(std::to_string(k) + " nearest of " + std::to_string(n_keys) +
                                    " keys: there are not so many");
    }
    const nb::gil_scoped_release no_gil;
    steerx::nearest_keys({span_of(keys), span_of(scales), keys.shape(1)}, span_of(queries), k, span_of(places),
                         span_of(similarities));
}

void keys_of(const Array<const float, 2> &rows, const Array<const float, 1> &mean, const Array<const float, 2> &basis,
             const Array<float, 2> &keys) {
    require_same_length(mean.size(), rows.shape(1), "rows, n_embd axis");
    require_same_length(mean.size(), basis.shape(0), "basis, n_embd axis");
    require_same_length(rows.shape(0), keys.shape(0), "keys, row axis");
    require_same_length(basis.shape(1), keys.shape(1), "keys, d axis");
    if (mean.size() == 0) {
        throw std::invalid_argument("rows have one number at least");
    }
    const nb::gil_scoped_release no_gil;
    steerx::keys_of(span_of(rows), span_of(mean), span_of(basis), span_of(keys));
}

void weigh(const Array<const float, 2> &similarities, const Array<const float, 2> &weights, float temperature,
           float closed_at, float open_at, const Array<float, 2> &shares, const Array<float, 1> &gates) {
    const size_t n_rows = gates.size();
    const size_t k = shares.shape(1);
    require_same_length(n_rows, shares.shape(0), "shares, row axis");
    for (const auto *each : {&similarities, &weights}) {
        require_same_length(n_rows, each->shape(0), "similarities and weights, row axis");
        require_same_length(k, each->shape(1), "similarities and weights, k axis");
    }
    if (k == 0) {
        throw std::invalid_argument("there is one neighbour at least");
    }
    steerx::weigh(span_of(similarities), span_of(weights), {temperature, closed_at, open_at}, span_of(shares),
                  span_of(gates));
}

void mix(const nb::ndarray<float, nb::numpy, nb::ndim<1>, nb::device::cpu> &logits,
         const Array<const int32_t, 1> &tokens, const Array<const float, 1> &shares, double weight) {
    require_same_length(tokens.size(), shares.size(), "shares");
    if (logits.stride(0) < 1) {
        throw std::invalid_argument("logits must lie one after the other");
    }
    const nb::gil_scoped_release no_gil;
    steerx::mix({logits.data(), logits.size(), static_cast<size_t>(logits.stride(0))}, span_of(tokens), span_of(shares),
                weight);
}

void run_hashes(const Array<const int32_t, 2> &runs, const Array<uint32_t, 1> &hashes) {
    require_same_length(runs.shape(0), hashes.size(), "hashes");
    steerx::run_hashes(span_of(runs), runs.shape(1), span_of(hashes));
}

void leave_out_runs(const Array<const int32_t, 1> &text, const Array<const uint32_t, 1> &hashes, size_t length,
                    const Array<const int32_t, 1> &tokens, const Array<float, 1> &shares) {
    require_same_length(tokens.size(), shares.size(), "shares");
    if (length == 0) {
        throw std::invalid_argument("a run has one token at least");
    }
    steerx::leave_out_runs(span_of(text), span_of(hashes), length, span_of(tokens), span_of(shares));
}

} // namespace

NB_MODULE(_native, m) {
    // At the end of the interpreter, what a daemon thread still holds is no leak.
    nb::set_leak_warnings(false);
    m.doc() = "Reads the residual stream of llama.cpp contexts, scores tokens, looks up a memory. Private to the "
              "package; _native.pyi tells shapes, units and lifetimes.";

    nb::class_<steerx::LlamaApi>(m, "LlamaApi", "The functions of llama.cpp that are called, found at run time.")
        .def(
            "__init__",
            [](steerx::LlamaApi *self, const std::vector<uintptr_t> &libraries) {
                new (self) steerx::LlamaApi(steerx::LlamaApi::resolve(libraries));
            },
            "libraries"_a,
            "libraries: handles of the loaded shared libraries.\n\nRaises RuntimeError naming a missing function.");

    nb::class_<steerx::Intervention>(m, "Intervention", "A change to rows of the residual stream; see make_*.")
        .def_prop_ro("width", &steerx::Intervention::width, "Length of the rows that it can be applied to.");

    m.def(
        "make_add",
        [](const std::vector<int32_t> &layers, const Array<const float, 2> &vectors) {
            return steerx::make_add(layer_vectors(layers, vectors));
        },
        "layers"_a, "vectors"_a, "row += vector; vectors: (layer, n_embd).");
    m.def(
        "make_set_component",
        [](const std::vector<int32_t> &layers, const Array<const float, 2> &directions,
           const std::vector<float> &values) {
            return steerx::make_set_component(layer_vectors(layers, directions), values);
        },
        "layers"_a, "directions"_a, "values"_a,
        "Set the component along unit directions (layer, n_embd) to values (layer,).");
    m.def(
        "make_rotate",
        [](const std::vector<int32_t> &layers, const Array<const float, 2> &directions, float angle) {
            return steerx::make_rotate(layer_vectors(layers, directions), angle);
        },
        "layers"_a, "directions"_a, "angle"_a, "Turn by `angle` radians towards unit directions, keeping the length.");
    m.def(
        "make_gate",
        [](const steerx::InterventionPtr &inner, const std::vector<int32_t> &layers,
           const Array<const float, 2> &conditions,
           float threshold) { return steerx::make_gate(inner, layer_vectors(layers, conditions), threshold); },
        "inner"_a, "layers"_a, "conditions"_a, "threshold"_a, "Only where cos(row, condition) > threshold.");
    m.def("make_clamp", &steerx::make_clamp, "inner"_a, "share"_a,
          "Shorten the change to at most `share` of the row's length.");

    nb::class_<ReadRequest>(m, "Read", "What to read: hook_point, layers, picks, and the array to add to.")
        .def(
            "__init__",
            [](ReadRequest *self, std::string hook_point, std::vector<int32_t> layers, Array<const int32_t, 1> rows,
               Array<const int32_t, 1> slots, Array<const float, 1> weights, Array<float, 3> values) {
                new (self) ReadRequest{std::move(hook_point), std::move(layers),  std::move(rows),
                                       std::move(slots),      std::move(weights), std::move(values)};
            },
            "hook_point"_a, "layers"_a, "rows"_a, "slots"_a, "weights"_a, "values"_a.noconvert());
    nb::class_<WriteRequest>(m, "Write", "What to change: an intervention, layers, rows of the batch.")
        .def(
            "__init__",
            [](WriteRequest *self, steerx::InterventionPtr intervention, std::vector<int32_t> layers,
               std::vector<int32_t> rows) {
                new (self) WriteRequest{std::move(intervention), std::move(layers), std::move(rows)};
            },
            "intervention"_a, "layers"_a, "rows"_a);

    nb::class_<BoundHooks>(m, "ResidualHooks",
                           "An eval callback that reads and changes rows of the residual stream.\n\n"
                           "Keep it as long as the context evaluates batches; one pass at a time.")
        .def(nb::init<const steerx::LlamaApi &, int32_t, int32_t>(), "api"_a, "n_layer"_a, "n_embd"_a)
        .def_prop_ro_static(
            "callback", [](nb::handle) { return reinterpret_cast<uintptr_t>(&steerx::ResidualHooks::callback); },
            "Address for llama_context_params.cb_eval.")
        .def_prop_ro(
            "user_data", [](BoundHooks &self) { return reinterpret_cast<uintptr_t>(&self.hooks); },
            "Address for llama_context_params.cb_eval_user_data; valid as long as this object.")
        .def("arm", &BoundHooks::arm, "tokens"_a, "output_row"_a, "writes"_a, "reads"_a, "stop_after_last_layer"_a,
             "Follow the next decode call, of at most one micro-batch.\n\n"
             "tokens: (n_tokens,) the batch; output_row: (n_tokens,) place among the outputs or -1;\n"
             "writes are applied in order, then reads are made. Arrays are kept until finish() or cancel().")
        .def("finish", &BoundHooks::finish,
             "End the pass and let go of its arrays. Raises what went wrong in the callback, or RuntimeError for a\n"
             "layer never seen.")
        .def("cancel", &BoundHooks::cancel, "End the pass without a complaint.");

    m.def("score_tokens", &score_tokens, "api"_a, "context"_a, nb::kw_only(), "n_vocab"_a, "batch_index"_a, "target"_a,
          "n_threads"_a, "log_prob"_a.noconvert(), "entropy"_a.noconvert() = nb::none(),
          "top_token"_a.noconvert() = nb::none(), "top_log_prob"_a.noconvert() = nb::none(),
          "expected"_a.noconvert() = nb::none(), "bias_factors"_a.noconvert() = nb::none(),
          "biased"_a.noconvert() = nb::none(),
          "Log-probabilities, in nats, of `target` (row,) at the outputs `batch_index` (row,) of the last decode.\n\n"
          "Fills log_prob (row,), and entropy (row,), top_token and top_log_prob (row, top_k) if given.\n"
          "Adds the rows' distributions to expected (n_vocab,), and fills biased (bias, row) with the\n"
          "log-probabilities under logits + log(bias_factors) (bias, n_vocab), if given.\n"
          "Nothing else may use the context or the arrays meanwhile; the GIL is released.\n"
          "Raises IndexError for a row without logits or a token outside the vocabulary.");

    m.def("nearest_keys", &nearest_keys, "keys"_a.noconvert(), "scales"_a.noconvert(), "queries"_a.noconvert(),
          "places"_a.noconvert(), "similarities"_a.noconvert(),
          "The k keys of largest product with each of `queries` (query, d), nearest first.\n\n"
          "keys (n, d) int8 are each multiplied by scales (n,). Fills places (query, k), rows of keys, and\n"
          "similarities (query, k). The GIL is released; one thread.\n"
          "Raises ValueError where k is larger than n.");

    m.def("mix", &mix, "logits"_a.noconvert(), "tokens"_a.noconvert(), "shares"_a.noconvert(), "weight"_a,
          "Change logits (n_vocab,), which may lie apart, to those of the mixture\n"
          "(1 - weight * sum(shares)) p + weight * shares, with shares (k,) of tokens (k,).\n"
          "The GIL is released. Raises IndexError for a token outside the vocabulary.");

    m.def("run_hashes", &run_hashes, "runs"_a.noconvert(), "hashes"_a.noconvert(),
          "Fill hashes (r,) with those of runs (r, length) of tokens.");
    m.def(
        "ends_in_a_repeat",
        [](const Array<const int32_t, 1> &text, size_t length) {
            return steerx::ends_in_a_repeat(span_of(text), length);
        },
        "text"_a.noconvert(), "length"_a, "Whether the last `length` tokens of a text stand earlier in it, too.");
    m.def("leave_out_runs", &leave_out_runs, "text"_a.noconvert(), "hashes"_a.noconvert(), "length"_a,
          "tokens"_a.noconvert(), "shares"_a.noconvert(),
          "Set the shares (k,) of tokens (k,) to 0 that would complete, after a text, a run of three that stands in\n"
          "the text, or one of `length` tokens whose hash is in `hashes` (sorted).");

    m.def("keys_of", &keys_of, "rows"_a.noconvert(), "mean"_a.noconvert(), "basis"_a.noconvert(), "keys"_a.noconvert(),
          "Fill keys (row, d) with unit vectors along (row / |row| - mean) @ basis, of rows (row, n_embd).\n"
          "The GIL is released.");
    m.def("weigh", &weigh, "similarities"_a.noconvert(), "weights"_a.noconvert(), "temperature"_a, "closed_at"_a,
          "open_at"_a, "shares"_a.noconvert(), "gates"_a.noconvert(),
          "Fill shares (row, k) with softmax(similarities / temperature) * weights, and gates (row,), which open\n"
          "between the highest similarities `closed_at` and `open_at`. Similarities (row, k) come nearest first.");
}
