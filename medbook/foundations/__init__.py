"""Part 2, the mathematics in plain NumPy, forward and backward, each function checked against Keras."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["arrays", "convolution", "pooling", "dense", "losses", "backprop", "recurrent", "attention"],
    submod_attrs={
        "arrays": ["ArrayError", "numerical_gradient"],
        "convolution": ["convolve", "correlate", "conv1d", "conv1d_backward", "conv2d", "conv2d_backward", "conv2d_loops", "im2col",
                        "output_size", "receptive_field"],
        "pooling": ["max_pool2d", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward", "global_max_pool2d",
                    "global_max_pool2d_backward", "global_avg_pool2d", "global_avg_pool2d_backward"],
        "dense": ["dense_backward", "sigmoid", "sigmoid_backward", "tanh", "tanh_backward", "relu",
                  "relu_backward", "leaky_relu", "leaky_relu_backward", "gelu", "gelu_backward",
                  "softplus", "softplus_backward", "softmax", "softmax_backward", "log_softmax",
                  "log_softmax_backward"],
        "losses": ["mean_squared_error", "mean_squared_error_backward", "binary_cross_entropy", "binary_cross_entropy_backward",
                   "categorical_cross_entropy", "categorical_cross_entropy_backward", "sparse_categorical_cross_entropy",
                   "sparse_categorical_cross_entropy_backward", "binary_focal_loss", "binary_focal_loss_backward",
                   "categorical_focal_loss", "categorical_focal_loss_backward"],
        "backprop": ["Network", "Layer", "Conv2D", "Dense", "ReLU", "MaxPool2D", "Flatten", "SGD", "Momentum", "Adam", "gradient_check",
                     "get_weights", "set_weights", "train"],
        "recurrent": ["rnn", "rnn_step", "rnn_backward", "lstm", "lstm_step", "lstm_backward", "gru", "gru_step", "gru_backward",
                      "LSTM", "clip_gradients"],
        "attention": ["one_hot", "embedding", "embedding_backward", "positional_encoding", "causal_mask", "padding_mask",
                      "scaled_dot_product_attention", "scaled_dot_product_attention_backward", "HeadWeights", "multi_head_attention",
                      "multi_head_attention_backward"],
    },
)
