// The hook among nodes that llama.cpp computes in no model, and how often rows cross to a device.
#include "../residual_hooks.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <stdexcept>

// What the hook sees of a node; its sources come first, as LlamaApi::sources_offset says below.
struct ggml_tensor {
    const ggml_tensor *sources[2] = {nullptr, nullptr};
    std::string name;
    std::string op;
    int64_t width = 0;
    void *data = nullptr;
    size_t n_bytes = 0;
};

namespace {

using steerx::Pick;

constexpr int32_t n_layer = 4;
constexpr int32_t n_embd = 3;
constexpr size_t row_bytes = n_embd * sizeof(float);

struct Transfer {
    std::string what; // "get" or "set" and the tensor
    size_t offset;
    size_t size;

    bool operator==(const Transfer &) const = default;
};

std::vector<Transfer> transfers; // since a Model was made

steerx::LlamaApi counting_api() {
    steerx::LlamaApi api{};
    api.ggml_get_name = [](const ggml_tensor *tensor) { return tensor->name.c_str(); };
    api.ggml_op_desc = [](const ggml_tensor *tensor) { return tensor->op.c_str(); };
    api.ggml_nbytes = [](const ggml_tensor *tensor) { return tensor->n_bytes; };
    api.ggml_nelements = [](const ggml_tensor *tensor) {
        return static_cast<int64_t>(tensor->n_bytes / sizeof(float));
    };
    api.ggml_nrows = [](const ggml_tensor *tensor) {
        return static_cast<int64_t>(tensor->n_bytes / sizeof(float)) / tensor->width;
    };
    api.ggml_backend_tensor_get = [](const ggml_tensor *tensor, void *data, size_t offset, size_t size) {
        transfers.push_back({"get " + tensor->name, offset, size});
        std::memcpy(data, static_cast<const char *>(tensor->data) + offset, size);
    };
    api.ggml_backend_tensor_set = [](ggml_tensor *tensor, const void *data, size_t offset, size_t size) {
        transfers.push_back({"set " + tensor->name, offset, size});
        std::memcpy(static_cast<char *>(tensor->data) + offset, data, size);
    };
    return api;
}

// A batch of eight tokens, and blocks that each add 1 to every number.
class Model {
  public:
    steerx::ResidualHooks hooks{counting_api(), n_layer, n_embd};
    std::vector<int32_t> tokens = {5, 6, 7, 8, 9, 10, 11, 12};
    std::vector<float> rows = std::vector<float>(8 * n_embd, 0.0F);

    Model() { transfers.clear(); }

    steerx::PassPlan plan() const {
        steerx::PassPlan plan;
        plan.tokens = tokens;
        plan.output_row = {0, 1, 2, 3, 4, 5, 6, 7};
        return plan;
    }

    // Offers a node as llama.cpp does; whether the graph goes on.
    bool compute(ggml_tensor tensor) {
        const bool wanted = steerx::ResidualHooks::callback(&tensor, true, &hooks);
        return !wanted || steerx::ResidualHooks::callback(&tensor, false, &hooks);
    }

    void look_up_tokens() {
        ggml_tensor input{.name = "inp_tokens", .data = tokens.data(), .n_bytes = tokens.size() * sizeof(int32_t)};
        compute({.sources = {nullptr, &input}, .name = "embd", .op = "GET_ROWS", .width = n_embd});
    }

    bool block(int32_t layer, int64_t width = n_embd) {
        for (float &value : rows) {
            value += 1;
        }
        return compute({.name = "l_out-" + std::to_string(layer),
                        .op = "ADD",
                        .width = width,
                        .data = rows.data(),
                        .n_bytes = rows.size() * sizeof(float)});
    }
};

steerx::Reading reading(std::vector<int32_t> layers, std::vector<int32_t> rows, std::vector<float> &values) {
    values.assign(layers.size() * n_embd, 0.0F);
    steerx::Reading reading{"l_out", std::move(layers), {}, values};
    for (const int32_t row : rows) {
        reading.picks.push_back({row, 0, 1.0F});
    }
    return reading;
}

steerx::Writing adding(int32_t layer, std::vector<int32_t> rows, float value = 100) {
    return {steerx::make_add({{layer}, std::vector<float>(n_embd, value), n_embd}), {layer}, std::move(rows)};
}

struct Failing : steerx::Intervention {
    void apply(int32_t /*layer*/, std::span<float> /*row*/) const override { throw std::domain_error("cannot"); }
    int32_t width() const override { return n_embd; }
};

// `ask`: does the hook want the node? Then, whether to go on after it.
std::pair<bool, bool> answers(Model &model) {
    ggml_tensor other{.name = "norm-1"};
    return {steerx::ResidualHooks::callback(&other, true, &model.hooks),
            steerx::ResidualHooks::callback(&other, false, &model.hooks)};
}

} // namespace

TEST_CASE("rows of a layer cross once each way, whatever is done with them") {
    Model model;
    std::vector<float> two;
    std::vector<float> one;
    steerx::PassPlan plan = model.plan();
    plan.writings = {adding(1, {6, 3}), adding(1, {4}), adding(3, {7})};
    plan.readings = {reading({1, 2}, {5, 7, 2}, two), reading({1}, {4, 4}, one)};
    model.hooks.arm(plan);
    model.look_up_tokens();
    for (int32_t layer = 0; layer < n_layer; ++layer) {
        CHECK(model.block(layer));
    }
    model.hooks.finish();
    CHECK(transfers == std::vector<Transfer>{{"get inp_tokens", 0, 8 * sizeof(int32_t)},
                                             {"get l_out-1", 2 * row_bytes, 6 * row_bytes},
                                             {"set l_out-1", 2 * row_bytes, 6 * row_bytes},
                                             {"get l_out-2", 2 * row_bytes, 6 * row_bytes},
                                             {"get l_out-3", 7 * row_bytes, row_bytes},
                                             {"set l_out-3", 7 * row_bytes, row_bytes}});
    CHECK(two == std::vector<float>{6, 6, 6, 9, 9, 9});
    CHECK(one == std::vector<float>{204, 204, 204});
}

TEST_CASE("nothing crosses in an idle pass") {
    Model model;
    model.look_up_tokens();
    CHECK(model.block(0));
    CHECK(transfers.empty());
    CHECK(answers(model) == std::pair(false, true));
}

TEST_CASE("a graph in splits is ended by the first node of each") {
    Model model;
    std::vector<float> values;
    steerx::PassPlan plan = model.plan();
    plan.readings = {reading({1}, {0}, values)};
    plan.stop_after_last_layer = true;
    model.hooks.arm(plan);
    model.look_up_tokens();
    CHECK(model.block(0));
    CHECK_FALSE(model.block(1));
    CHECK(answers(model) == std::pair(true, false));
    model.hooks.finish();
    CHECK(answers(model) == std::pair(false, true));
}

TEST_CASE("rows without an output are not there in the last block, and are let alone") {
    Model model;
    steerx::PassPlan plan = model.plan();
    plan.output_row = {-1, -1, -1, -1, 0, 1, 2, 3};
    plan.writings = {adding(3, {0, 5})};
    model.hooks.arm(plan);
    model.look_up_tokens();
    model.rows.resize(4 * n_embd);
    CHECK(model.block(3));
    model.hooks.finish();
    CHECK(transfers.back() == Transfer{"set l_out-3", row_bytes, row_bytes});
    CHECK(model.rows == std::vector<float>{1, 1, 1, 101, 101, 101, 1, 1, 1, 1, 1, 1});
}

TEST_CASE("what goes wrong in the callback is told at the end, and the graph runs on without it") {
    Model model;
    std::vector<float> values;
    steerx::PassPlan plan = model.plan();
    plan.readings = {reading({1, 3}, {0}, values)};
    plan.stop_after_last_layer = true;
    const auto run = [&](const steerx::PassPlan &changed, auto during) {
        model.hooks.arm(changed);
        during();
        CHECK(answers(model) == std::pair(false, true));
        CHECK(model.block(3));
        model.hooks.finish();
    };

    SUBCASE("an intervention that throws") {
        plan.writings = {{std::make_shared<Failing>(), {1}, {2}}};
        CHECK_THROWS_AS(run(plan,
                            [&] {
                                model.look_up_tokens();
                                CHECK(model.block(1));
                            }),
                        std::domain_error);
    }
    SUBCASE("a layer that is computed twice") {
        CHECK_THROWS_WITH(run(plan,
                              [&] {
                                  model.look_up_tokens();
                                  CHECK(model.block(1));
                                  CHECK(model.block(1));
                              }),
                          "l_out-1 was computed twice in one pass");
    }
    SUBCASE("rows of another width") {
        CHECK_THROWS_WITH(run(plan,
                              [&] {
                                  model.look_up_tokens();
                                  CHECK(model.block(1, 2));
                              }),
                          "l_out-1 is not a float32 matrix with rows of 3");
    }
    SUBCASE("another number of rows") {
        plan.output_row = {0, 1, 2, 3, 4, -1, -1, -1};
        model.rows.resize(5 * n_embd); // as if this were the last block
        CHECK_THROWS_WITH(run(plan,
                              [&] {
                                  model.look_up_tokens();
                                  CHECK(model.block(1));
                              }),
                          "l_out-1 has 5 rows where 8 were expected");
    }
    SUBCASE("another order") {
        std::swap(plan.tokens[0], plan.tokens[7]);
        CHECK_THROWS_WITH(run(plan, [&] { model.look_up_tokens(); }),
                          "llama.cpp computes the tokens of the batch in another order");
    }
    model.hooks.arm(model.plan()); // and the hook can be used again
    model.look_up_tokens();
    model.hooks.finish();
}

TEST_CASE("an order that was never seen is refused") {
    Model model;
    std::vector<float> values;
    steerx::PassPlan plan = model.plan();
    plan.readings = {reading({1}, {0}, values)};
    model.hooks.arm(plan);
    CHECK(model.block(1));
    CHECK_THROWS_WITH(model.hooks.finish(), "the order in which llama.cpp computes the tokens could not be checked");
}
